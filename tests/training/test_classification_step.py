"""Gradients of classification are those of the whole batch, however it is split."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import tiny
from tests.training.linear import Training
from vlbeit_jax.models.classifier import Classifier
from vlbeit_jax.objectives.base import ROW, Context, Variables, on_one_device
from vlbeit_jax.objectives.mixing import Mixing
from vlbeit_jax.objectives.supervised import CLASS, Supervised
from vlbeit_jax.training.step import stream_key
from vlbeit_jax.types import Modality

ROWS, SIZE, CLASSES = 32, 16, 5
MODEL = dataclasses.replace(tiny.SMALL, image_size=SIZE, drop_path=0.3, matmul="float32")
ONE, EIGHT = (1, 1, 1), (4, 2, 1)
SPLITS = [(EIGHT, 2)]
MORE_SPLITS = [(ONE, 1), (ONE, 4), ((2, 2, 2), 4), (ONE, 2), (EIGHT, 1)]
TASKS = {
    "image": Supervised(
        Classifier(MODEL, CLASSES, Modality.VISION, "mean"), 0.1, Mixing(mixup=0.8, cutmix=1.0)
    ),
    "text": Supervised(Classifier(MODEL, CLASSES, Modality.LANGUAGE, "cls"), 0.1),
}


def batch(name):
    rng = np.random.default_rng(0)
    weight = np.ones(ROWS, np.float32)
    weight[5] = 0
    rows = {"label": rng.integers(0, CLASSES, ROWS).astype(np.int32), "weight": weight}
    if name == "text":
        return rows | {"text": rng.integers(4, 40, (ROWS, 8)).astype(np.int32)}
    box = rng.integers(1, 9, (ROWS, 4)) * (rng.uniform(size=(ROWS, 1)) < 0.5)
    image = rng.integers(0, 256, (ROWS, SIZE, SIZE, 3), np.uint8)
    return rows | {"image": image, "erase": box.astype(np.int32)}


def init(name):
    return lambda key: TASKS[name].network.init(key, method="init_all")["params"]


def random_like(tree):
    """Values that make every gradient visible; at the start, those below the head are tiny."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), tree)


@functools.cache
def direct(name):
    """Loss and gradients by differentiating the loss of the whole batch."""
    rows = jax.tree.map(jnp.asarray, {**batch(name), ROW: np.arange(ROWS)})
    ctx = Context(stream_key(0, "toy", jnp.int32(0)))
    training = Training(ONE, objective=TASKS[name], init=init(name))
    params = random_like(training.abstract.params)

    def loss(params):
        terms, _ = on_one_device(TASKS[name], Variables(params, {}, {}), rows, ctx)
        return terms[CLASS].loss / terms[CLASS].weight

    return jax.device_get(jax.jit(jax.value_and_grad(loss))(params))


def by_the_step(name, shape, parts, objective=None):
    training = Training(
        shape,
        accumulate=parts,
        optimizer=optax.sgd(1.0),
        objective=objective or TASKS[name],
        init=init(name),
    )
    state = training.make(0)
    before = random_like(training.abstract.params)
    params = jax.tree.map(
        lambda value, leaf: jax.device_put(value, leaf.sharding), before, state.params
    )
    state, metrics = training(dataclasses.replace(state, params=params), batch(name))
    jax.block_until_ready(state.params)
    return (
        float(metrics["class/loss"]),
        jax.tree.map(np.subtract, before, jax.device_get(state.params)),
    )


def assert_same(found, expected):
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected[1]))
    for (path, one), other in zip(
        jax.tree_util.tree_leaves_with_path(found[1]), jax.tree.leaves(expected[1]), strict=True
    ):
        assert np.abs(one - other).max() < 1e-5 * largest, jax.tree_util.keystr(path)


@pytest.mark.parametrize(
    ("name", "shape", "parts"),
    [
        *(("image", *split) for split in SPLITS),
        *(pytest.param("image", *split, marks=pytest.mark.slow) for split in MORE_SPLITS),
        ("text", EIGHT, 2),
    ],
    ids=str,
)
def test_gradients_are_those_of_the_whole_batch(name, shape, parts):
    assert_same(by_the_step(name, shape, parts), direct(name))


@dataclasses.dataclass(frozen=True)
class MixedApart(Supervised):
    """A control: rows are mixed within their device and microbatch."""

    def prepare(self, variables, batch, ctx, per_row):
        return batch

    def __call__(self, variables, batch, ctx):
        return super().__call__(variables, self.mixing.prepare(batch, ctx.key), ctx)


def test_rows_that_are_mixed_within_microbatches_give_another_gradient():
    apart = MixedApart(**vars(TASKS["image"]))
    assert_same(by_the_step("image", ONE, 1, apart), direct("image"))
    with pytest.raises(AssertionError):
        assert_same(by_the_step("image", ONE, 4, apart), direct("image"))
