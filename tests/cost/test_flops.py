"""Operations from shapes are what XLA counts, and what a reader counts by hand."""

import dataclasses

import pytest

from tests import tiny
from vlbeit_jax.config import (
    SIZES,
    Config,
    DataConfig,
    ModelConfig,
    RunConfig,
    VisualTokenizerConfig,
)
from vlbeit_jax.cost.flops import step_flops, transformer
from vlbeit_jax.tasks.abstract import abstract_step
from vlbeit_jax.types import Stream

DATA = DataConfig(
    **{
        stream: dataclasses.replace(getattr(DataConfig(), stream), batch_size=2)
        for stream in Stream
    }
)
BASE = Config(model=ModelConfig(**SIZES["base"]), data=DATA)
CONFIGS = {
    "joint": BASE,
    "images": dataclasses.replace(BASE, run=RunConfig(schedule="image")),
    "texts": dataclasses.replace(BASE, run=RunConfig(schedule="text")),
    "pairs": dataclasses.replace(BASE, run=RunConfig(schedule="pair")),
    "vqkd": dataclasses.replace(BASE, task="vqkd", run=RunConfig(schedule="image")),
    "clip": dataclasses.replace(
        BASE,
        task="vqkd",
        run=RunConfig(schedule="image"),
        visual_tokenizer=VisualTokenizerConfig(teacher="clip"),
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_xla_counts_the_same_within_five_percent(name):
    """At base size, before optimisation; XLA's count has the elementwise operations too, so it is the larger one."""
    config = CONFIGS[name]
    step = abstract_step(config, tiny.mesh_of())
    counted = step.step.lower(step.state, step.frozen, step.batches).cost_analysis()["flops"]
    found = step_flops(config)
    assert 1 < counted / (found.model + found.frozen) < 1.05


def test_a_block_is_twelve_squares_of_the_width_and_the_attention():
    length, width = 100, 64
    assert transformer(length, width, 3, 4 * width) == 3 * (
        2 * length * 12 * width**2 + 4 * length**2 * width
    )


def test_an_alternating_schedule_costs_the_mean_of_its_steps():
    found = step_flops(dataclasses.replace(BASE, run=RunConfig(schedule="image,text+pair")))
    parts = [step_flops(BASE, streams) for streams in ((Stream.IMAGE,), (Stream.TEXT, Stream.PAIR))]
    for name in ("model", "frozen", "tokens", "samples"):
        assert getattr(found, name) == sum(getattr(part, name) for part in parts) / 2
    assert found.samples == 3 and found.tokens == (2 * 197 + 2 * 128 + 2 * 256) / 2
