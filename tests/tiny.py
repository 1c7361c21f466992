"""A world small enough for seconds: data sets, tokenizers and configurations."""

import dataclasses
import json
import os
import pathlib
import re
import subprocess
from typing import Any

import cv2
import jax
import numpy as np

from tests import processes
from vlbeit_jax.config.common import OptimizerConfig, RunConfig
from vlbeit_jax.config.networks import ModelConfig, VisualTokenizerConfig
from vlbeit_jax.config.parse import to_dict
from vlbeit_jax.config.streams import (
    ImageStreamConfig,
    PairStreamConfig,
    TextStreamConfig,
    ViewStreamConfig,
)
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.prepare.pack import pack_texts
from vlbeit_jax.prepare.text_tokenizer import train_text_tokenizer
from vlbeit_jax.prepare.writer import write_set
from vlbeit_jax.runtime.start import train
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.pretrain import Pretrain
from vlbeit_jax.tasks.vqkd import VQKD
from vlbeit_jax.training.mesh import AXES
from vlbeit_jax.types import Kind

TOP = processes.TOP
COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 180, 40),
    "blue": (30, 40, 220),
    "yellow": (230, 220, 40),
}
SHAPES = ("disc", "square", "bar", "ring")
PIECES = 310


@dataclasses.dataclass(frozen=True)
class World:
    """Folders of everything that a run needs."""

    pairs: pathlib.Path
    texts: pathlib.Path
    tokens: pathlib.Path
    text_tokenizer: pathlib.Path
    vqkd: pathlib.Path


# A backbone of four patches, for tests of heads and losses.
SMALL = ModelConfig(
    image_size=16,
    patch_size=8,
    width=16,
    depth=2,
    heads=2,
    ffn_width=32,
    fused_layers=1,
    text_positions=8,
    vocabulary=40,
    drop_path=0.0,
)


def world_in(folder: pathlib.Path) -> World:
    return World(
        *(folder / name for name in ("pairs", "texts", "tokens", "text_tokenizer", "vqkd"))
    )


def make_world(folder: pathlib.Path) -> World:
    world = world_in(folder)
    write_set(
        world.pairs, Kind.PAIRS, pair_records(64), shards=1, meta={"source": "tests", "licence": ""}
    )
    write_set(
        world.texts, Kind.TEXTS, text_records(40), shards=1, meta={"source": "tests", "licence": ""}
    )
    train_text_tokenizer(world.text_tokenizer, [str(world.texts), str(world.pairs)], PIECES, 10**6)
    pack_texts(world.tokens, [str(world.texts)], TextTokenizer(world.text_tokenizer), 16)
    train(vqkd_config(world), world.vqkd)
    return world


def drawing(
    rng: np.random.Generator, shape: str, colour: tuple[int, int, int], side: int = 32
) -> np.ndarray:
    image = np.full((side, side, 3), 255, np.uint8)
    centre = tuple(int(x) for x in rng.integers(side // 3, side - side // 3, 2))
    if shape == "square":
        cv2.rectangle(
            image, (centre[0] - 8, centre[1] - 8), (centre[0] + 8, centre[1] + 8), colour, -1
        )
    elif shape == "bar":
        cv2.rectangle(image, (0, centre[1] - 4), (side, centre[1] + 4), colour, -1)
    else:
        cv2.circle(image, centre, 9, colour, -1 if shape == "disc" else 3)
    return image


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def pair_records(count: int, seed: int = 0, first: int = 0, side: int = 32):
    """Pairs with distinct pictures and captions; every fourth pair is held out.

    Pictures of another ``side`` differ in content too.
    """
    rng, drawn = np.random.default_rng(seed), set()
    for index in range(first, first + count):
        shape, colour = str(rng.choice(SHAPES)), str(rng.choice(list(COLOURS)))
        image = png(drawing(rng, shape, COLOURS[colour], side))
        while image in drawn:
            image = png(drawing(rng, shape, COLOURS[colour], side))
        drawn.add(image)
        split = "validation" if index % 4 == 0 else "train"
        caption = f"a {colour} {shape} number {index}"
        yield (
            split,
            {
                "id": f"pair/{index}",
                "source": f"pair/{index}.png",
                "image": image,
                "captions": [caption],
            },
        )


def text_records(count: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    words = [
        a + b + c
        for a in ("ba", "ko", "li", "mu", "ter")
        for b in ("n", "rs", "ft")
        for c in ("a", "e", "ing", "ous")
    ]
    for index in range(count):
        text = " ".join(rng.choice(words, 60)) + f". Document {index}."
        yield (
            "validation" if index % 4 == 0 else "train",
            {"id": f"text/{index}", "source": "texts.txt", "text": text},
        )


def vqkd_config(world: World, **run) -> Config:
    return Config(
        task=VQKD(
            model=VisualTokenizerConfig(
                image_size=32,
                patch_size=8,
                width=32,
                heads=2,
                ffn_width=64,
                encoder_depth=1,
                decoder_depth=1,
                codes=32,
                code_width=8,
                kmeans_batches=2,
            ),
            image=ViewStreamConfig(
                sources=(str(world.pairs),), batch_size=16, crop_scale=0.5, colour_jitter=0.0
            ),
        ),
        run=RunConfig(
            **{"steps": 3, "log_every": 2, "checkpoint_every": 3, "evaluate_batches": 1} | run
        ),
        optimizer=OptimizerConfig(peak_lr=1e-3, warmup_steps=1),
    )


def pretrain_config(world: World, schedule: str = "image,text,pair", **run) -> Config:
    image = {
        "sources": (str(world.pairs),),
        "batch_size": 8,
        "num_masked_patches": 6,
        "mask_block": 2,
    }
    return Config(
        task=Pretrain(
            schedule=schedule,
            model=ModelConfig(
                image_size=32,
                patch_size=8,
                width=32,
                depth=2,
                heads=4,
                ffn_width=64,
                fused_layers=1,
                text_positions=16,
                vocabulary=PIECES,
                codes=32,
                drop_path=0.2,
            ),
            image=ImageStreamConfig(**image),
            text=TextStreamConfig(sources=(str(world.tokens),), batch_size=8, text_length=16),
            pair=PairStreamConfig(**image, text_length=16, masked_text=0.5),
            text_tokenizer=str(world.text_tokenizer),
            visual_tokenizer=str(world.vqkd),
        ),
        run=RunConfig(
            **{"steps": 20, "log_every": 5, "checkpoint_every": 10, "evaluate_every": 0} | run
        ),
        optimizer=OptimizerConfig(peak_lr=1e-3, warmup_steps=2),
    )


def changed(section: Any, **changes: Any) -> Any:
    """A section with other values; a dict changes some values of a section in it."""
    values = {
        name: changed(getattr(section, name), **value) if isinstance(value, dict) else value
        for name, value in changes.items()
    }
    return dataclasses.replace(section, **values)


def learning_config(world: World, schedule: str = "image,text,pair", **run) -> Config:
    """Sixty steps at a rate at which every loss falls."""
    config = pretrain_config(world, schedule=schedule, **{"steps": 60, "log_every": 12} | run)
    return changed(config, optimizer={"peak_lr": 5e-3})


def config_file(config: Config, folder: pathlib.Path) -> pathlib.Path:
    """A configuration as a file for the command line."""
    path = folder / "config_of_test.py"
    path.write_text(
        "import ml_collections\n\n\ndef get_config():\n"
        f"    return ml_collections.ConfigDict({to_dict(config)!r}).lock()\n"
    )
    return path


def command(
    module: str, *arguments: object, timeout: float = 300, devices: int = 1
) -> subprocess.CompletedProcess:
    """Runs ``python -m module`` in a process of its own that simulates ``devices``."""
    flags = os.environ["XLA_FLAGS"] + f" --xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags}
    return processes.command(module, *arguments, environment=environment, timeout=timeout)


def mesh_of(data: int = 1, fsdp: int = 1, tensor: int = 1) -> jax.sharding.Mesh:
    """A mesh over the first devices."""
    shape = (data, fsdp, tensor)
    return jax.make_mesh(
        shape,
        AXES,
        devices=jax.devices()[: data * fsdp * tensor],
        axis_types=(jax.sharding.AxisType.Auto,) * len(AXES),
    )


def metrics_of(workdir: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def one_device(flags: str) -> str:
    """XLA's flags for a computer of a user, which does not simulate eight devices."""
    return re.sub(r"(device_count)=\d+", r"\1=1", flags)
