"""Fine-tuning on pairs: the same losses and gradients however a batch is split."""

import dataclasses
import functools

import jax
import numpy as np
import optax
import pytest
from flax import linen as nn

from tests.models.tiny_models import model_config, randomise
from tests.objectives.retrieval_batches import assert_same_gradients
from tests.training.linear import Training
from vlbeit_jax.models.reasoner import Reasoner
from vlbeit_jax.models.retrieval import DualEncoder
from vlbeit_jax.models.vqa import VQA
from vlbeit_jax.objectives.answering import Answering
from vlbeit_jax.objectives.judging import Judging
from vlbeit_jax.objectives.matching import ContrastiveAndMatching
from vlbeit_jax.types import Special

ROWS, LENGTH, ANSWERS = 16, 6, 7
CONFIG = model_config(depth=1, fused_layers=1, drop_path=0.0)
IMAGES = (ROWS, CONFIG.image_size, CONFIG.image_size, 3)
OBJECTIVES = {
    "vqa": Answering(VQA(CONFIG, ANSWERS)),
    "retrieval": ContrastiveAndMatching(DualEncoder(CONFIG, 10, matching=True), negatives_among=8),
    "visual_reasoning": Judging(Reasoner(dataclasses.replace(CONFIG, drop_path=0.3))),
}
SPLITS = [
    *(pytest.param("vqa", (1, 1, 1), parts, marks=pytest.mark.slow) for parts in (2, 4)),
    ("vqa", (4, 2, 1), 2),
    # test_contrastive.py splits the losses of retrieval in more ways, by a network that compiles
    # fast; the network of retrieval has the backbone of question answering.
    pytest.param("retrieval", (4, 2, 1), 2, marks=pytest.mark.slow),
    # Split over devices and microbatches at once; the others split in one way.
    ("visual_reasoning", (4, 2, 1), 2),
    *(
        pytest.param("visual_reasoning", *split, marks=pytest.mark.slow)
        for split in (((1, 1, 1), 2), ((1, 1, 1), 4), ((4, 2, 1), 1))
    ),
]


def batch():
    """Rows with all that either task needs; one question has no answer of the list."""
    rng = np.random.default_rng(0)
    text = rng.integers(Special.MASK + 1, CONFIG.vocabulary, (ROWS, LENGTH)).astype(np.int32)
    text[:, 0], text[::3, -2:] = Special.CLS, Special.PAD
    scores = rng.choice([0.3, 0.6, 1.0], (ROWS, 10)).astype(np.float32)
    scores[:, 2:], scores[5] = 0, 0
    return {
        "image": rng.integers(0, 256, IMAGES, np.uint8),
        "second_image": rng.integers(0, 256, IMAGES, np.uint8),
        "text": text,
        "picture": np.array([3 if row == 4 else row for row in range(ROWS)], np.uint32),
        "answers": rng.permuted(np.tile(np.arange(ANSWERS), (ROWS, 2)), axis=1)[:, :10],
        "scores": scores,
        "truth": rng.integers(0, 2, ROWS).astype(np.int32),
        "weight": np.ones(ROWS, np.float32),
    }


def init(name, key):
    return OBJECTIVES[name].network.init(key, method="init_all")["params"]


@functools.cache
def random_params(name):
    shapes = nn.unbox(jax.eval_shape(functools.partial(init, name), jax.random.key(0)))
    return jax.device_get(randomise(shapes, 0, 1.0))


@functools.cache
def by_the_step(name, shape, parts):
    """Losses and gradients by a step of plain descent: at rate 1, a change is a gradient."""
    training = Training(
        shape,
        accumulate=parts,
        optimizer=optax.sgd(1.0),
        objective=OBJECTIVES[name],
        init=functools.partial(init, name),
    )
    state = training.make(0)
    places = jax.tree.map(lambda leaf: leaf.sharding, state.params)
    state = state.replace(params=jax.device_put(random_params(name), places))
    state, metrics = training(state, batch())
    assert int(metrics["refused"]) == 0
    gradients = jax.tree.map(np.subtract, random_params(name), jax.device_get(state.params))
    losses = {key: float(value) for key, value in metrics.items() if key.endswith("/loss")}
    return losses, gradients


@pytest.mark.parametrize(("name", "shape", "parts"), SPLITS, ids=str)
def test_losses_and_gradients_are_those_of_the_whole_batch(name, shape, parts):
    losses, gradients = by_the_step(name, shape, parts)
    expected, whole = by_the_step(name, (1, 1, 1), 1)
    assert losses == pytest.approx(expected, rel=2e-6)
    assert len(losses) == {"vqa": 1, "retrieval": 2, "visual_reasoning": 1}[name]
    assert_same_gradients(gradients, whole, 1e-5)
