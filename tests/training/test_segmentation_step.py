"""Segmentation: the same losses and gradients however a batch is split, with both norms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from tests.models.tiny_models import model_config, randomise
from tests.objectives.retrieval_batches import assert_same_gradients
from tests.training.linear import Training
from vlbeit_jax.metrics.segmentation import IGNORED
from vlbeit_jax.models.heads.upernet import UPerConfig
from vlbeit_jax.models.segmenter import Segmenter
from vlbeit_jax.objectives.base import ROW, Context, Variables
from vlbeit_jax.objectives.segmentation import Segmentation, with_statistics
from vlbeit_jax.training.step import stream_key

ROWS, SIDE, CLASSES = 16, 16, 3
CONFIG = model_config(depth=1, image_size=SIDE, patch_size=8, drop_path=0.3)
NORMS = ("group", "batch")
OTHERS = [((1, 1, 1), 2), ((1, 1, 1), 4), ((4, 2, 1), 1)]


def loss(norm):
    upernet = UPerConfig(CLASSES, 4, pools=(2,), norm=norm)
    return Segmentation(Segmenter(CONFIG, upernet, (0, 0, 0, 0)), dropout=0.3)


def batch():
    """One row only fills up the batch, and some pixels do not count."""
    rng = np.random.default_rng(0)
    mask = rng.integers(0, CLASSES, (ROWS, SIDE, SIDE)).astype(np.uint8)
    mask[rng.random(mask.shape) < 0.2] = IGNORED
    mask[3] = IGNORED
    weight = np.ones(ROWS, np.float32)
    weight[5] = 0
    image = rng.integers(0, 256, (ROWS, SIDE, SIDE, 3), np.uint8)
    return {"image": image, "mask": mask, "weight": weight}


@functools.cache
def random_params(norm):
    init = jax.eval_shape(init_of(norm), jax.random.key(0))
    return jax.device_get(randomise(nn.unbox(init), 0, 1.0))


@functools.cache
def init_of(norm):
    return lambda key: loss(norm).network.init(key, method="init_all")["params"]


@functools.cache
def by_the_step(norm, shape, parts):
    """Losses, gradients and statistics by a step of plain descent at rate 1."""
    training = Training(
        shape, accumulate=parts, optimizer=optax.sgd(1.0), objective=loss(norm), init=init_of(norm)
    )
    state = training.make(0)
    places = jax.tree.map(lambda leaf: leaf.sharding, state.params)
    state = state.replace(params=jax.device_put(random_params(norm), places))
    state, metrics = training(state, batch())
    assert int(metrics["refused"]) == 0
    gradients = jax.tree.map(np.subtract, random_params(norm), jax.device_get(state.params))
    names = ("segment/loss", "segment/accuracy", "auxiliary/loss")
    return (
        {name: float(metrics[name]) for name in names},
        gradients,
        jax.device_get(state.model_state["toy"]),
    )


@pytest.mark.parametrize(
    ("norm", "shape", "parts"),
    [
        ("batch", (4, 2, 1), 2),
        *(pytest.param(norm, *split, marks=pytest.mark.slow) for norm in NORMS for split in OTHERS),
        pytest.param("group", (4, 2, 1), 2, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_losses_and_gradients_are_those_of_the_whole_batch(norm, shape, parts):
    losses, gradients, statistics = by_the_step(norm, shape, parts)
    expected, whole, moved = by_the_step(norm, (1, 1, 1), 1)
    assert losses == pytest.approx(expected, rel=2e-6)
    assert_same_gradients(gradients, whole, 1e-5)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), statistics, moved
    )
    assert bool(jax.tree.leaves(moved)) is (norm == "batch")


def test_statistics_of_half_a_batch_would_be_others():
    """The control: each half normalised alone has another loss."""
    objective = loss("batch")
    params = jax.tree.map(jnp.asarray, random_params("batch"))
    rows = jax.tree.map(jnp.asarray, {**batch(), ROW: np.arange(ROWS)})
    ctx = Context(stream_key(0, "toy", jnp.zeros((), jnp.int32)))

    count = objective.weights(rows)["segment"]

    @jax.jit
    def total(rows):
        terms, _ = objective(Variables(params, {}, {}), rows, ctx)
        return terms["segment"].loss / count

    halves = [
        total(jax.tree.map(lambda leaf, part=part: leaf[part], rows))
        for part in (slice(0, 8), slice(8, 16))
    ]
    expected, _, _ = by_the_step("batch", (1, 1, 1), 1)
    assert abs(float(sum(halves)) / expected["segment/loss"] - 1) > 1e-3


def test_the_loss_is_the_mean_over_pixels_that_count():
    """In float64, from the logits alone; without dropout and drop path."""
    network = loss("group").network
    network = network.clone(config=model_config(depth=1, image_size=SIDE, patch_size=8))
    objective, rows = Segmentation(network, dropout=0.0), batch()
    params = jax.tree.map(jnp.asarray, random_params("group"))
    given = jax.tree.map(jnp.asarray, {**rows, ROW: np.arange(ROWS)})
    terms, _ = jax.jit(
        lambda rows: objective(Variables(params, {}, {}), rows, Context(jax.random.key(0)))
    )(given)
    logits = np.asarray(jax.jit(objective.logits)(params, given), np.float64)
    total, count, right = 0.0, 0, 0
    for row in range(ROWS):
        for y in range(SIDE):
            for x in range(SIDE):
                target = rows["mask"][row, y, x]
                if target == 255 or not rows["weight"][row]:
                    continue
                # Logits lie at a half of the image's side, for a patch of 8.
                here = _bilinear(logits[row], (y + 0.5) / 2 - 0.5, (x + 0.5) / 2 - 0.5)
                total += np.log(np.exp(here).sum()) - here[target]
                count, right = count + 1, right + (here.argmax() == target)
    term = terms["segment"]
    assert float(term.weight) == count and float(term.sums["accuracy"]) == right
    assert float(term.loss) == pytest.approx(total, rel=1e-5)


def _bilinear(grid, y, x):
    side = len(grid)
    y, x = np.clip([y, x], 0, side - 1)
    top, left = min(int(y), side - 2), min(int(x), side - 2)
    a, b = y - top, x - left
    rows = grid[top] * (1 - a) + grid[top + 1] * a
    return rows[left] * (1 - b) + rows[left + 1] * b


def test_inference_takes_the_running_statistics():
    objective = loss("batch")
    state = objective.init_model_state()
    params = jax.tree.map(jnp.asarray, random_params("batch"))
    moved, _ = objective.update(state, jax.tree.map(lambda leaf: leaf + 1.0, state))
    means = {
        float(leaf[0])
        for path, leaf in jax.tree_util.tree_leaves_with_path(moved)
        if path[-1].key == "mean"
    }
    assert means == {np.float32(0.1)}
    rows = {"image": jnp.asarray(batch()["image"])}
    logits = jax.jit(objective.logits)
    one = logits(with_statistics(params, state), rows)
    other = logits(with_statistics(params, moved), rows)
    assert np.abs(one - other).max() > 1e-3
    with pytest.raises(Exception, match="mean"):
        objective.logits(params, rows)
