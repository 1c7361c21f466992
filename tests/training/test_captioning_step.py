"""Captioning: the same losses and gradients however a batch is split, and what is left out."""

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
from vlbeit_jax.models.backbone import Inputs
from vlbeit_jax.models.captioner import Captioner
from vlbeit_jax.objectives.base import ROW, Context, Variables, on_one_device
from vlbeit_jax.objectives.captioning import CAPTION, KEPT, Captioning
from vlbeit_jax.types import Special

ROWS, LENGTH, SLOTS = 16, 6, 3
CONFIG = model_config(depth=1, fused_layers=1, drop_path=0.3)
NETWORK = Captioner(CONFIG)
LOSS = Captioning(NETWORK, smoothing=0.1, drop_worst=0.25)
SPLITS = [((4, 2, 1), 2)]
COARSER = [((1, 1, 1), 2), ((1, 1, 1), 4), ((4, 2, 1), 1)]


def batch():
    """One row only fills up the batch, and some rows do not use all slots."""
    rng = np.random.default_rng(0)
    text = rng.integers(Special.MASK, CONFIG.vocabulary, (ROWS, LENGTH)).astype(np.int32)
    text[:, 0], text[::3, -2:] = Special.CLS, Special.PAD
    positions = np.sort(rng.permuted(np.tile(np.arange(1, 4), (ROWS, 1)), axis=1), axis=1)
    weights = np.ones((ROWS, SLOTS), np.float32)
    weights[::4, 2] = 0
    weight = np.ones(ROWS, np.float32)
    weight[5] = 0
    return {
        "image": rng.integers(0, 256, (ROWS, CONFIG.image_size, CONFIG.image_size, 3), np.uint8),
        "text": text,
        "text_masked": positions.astype(np.int32),
        "text_targets": rng.integers(3, CONFIG.vocabulary, (ROWS, SLOTS)).astype(np.int32),
        "text_weights": weights,
        "weight": weight,
    }


def init(key):
    return NETWORK.init(key, method="init_all")["params"]


@functools.cache
def random_params():
    return jax.device_get(randomise(nn.unbox(jax.eval_shape(init, jax.random.key(0))), 0, 1.0))


@functools.cache
def by_the_step(shape, parts):
    """Losses and gradients by a step of plain descent: at rate 1, a change is a gradient."""
    training = Training(
        shape, accumulate=parts, optimizer=optax.sgd(1.0), objective=LOSS, init=init
    )
    state = training.make(0)
    places = jax.tree.map(lambda leaf: leaf.sharding, state.params)
    state = state.replace(params=jax.device_put(random_params(), places))
    state, metrics = training(state, batch())
    assert int(metrics["refused"]) == 0
    gradients = jax.tree.map(np.subtract, random_params(), jax.device_get(state.params))
    return {key: float(metrics[f"{CAPTION}/{key}"]) for key in ("loss", "accuracy")}, gradients


@pytest.mark.parametrize(
    ("shape", "parts"),
    [*SPLITS, *(pytest.param(*split, marks=pytest.mark.slow) for split in COARSER)],
    ids=str,
)
def test_losses_and_gradients_are_those_of_the_whole_batch(shape, parts):
    losses, gradients = by_the_step(shape, parts)
    expected, whole = by_the_step((1, 1, 1), 1)
    assert losses == pytest.approx(expected, rel=2e-6)
    assert_same_gradients(gradients, whole, 1e-5)


def test_the_largest_losses_are_left_out_after_some_steps():
    rows = jax.tree.map(jnp.asarray, {**batch(), ROW: np.arange(ROWS)})
    params, ctx = random_params(), Context(jax.random.key(3))
    plain = Captioning(NETWORK, smoothing=0.1)
    late = Captioning(NETWORK, smoothing=0.1, drop_worst=0.25, drop_worst_after=5)
    assert plain.init_model_state() == {} and late.init_model_state() == {"steps": 0}

    def term(loss, state):
        terms, _ = jax.jit(on_one_device, static_argnums=0)(
            loss, Variables(params, state, {}), rows, ctx
        )
        return jax.tree.map(float, terms[CAPTION])

    whole, before, after = term(plain, {}), *(term(late, {"steps": n}) for n in (4, 5))
    assert before.loss == pytest.approx(whole.loss, rel=1e-6)
    assert whole.weight == after.weight == before.weight == 3 * 16 - 4 - 3
    losses = np.asarray(jax.jit(plain._prediction)(params, rows, ctx).loss)
    losses = np.sort(losses[(batch()["text_weights"] * batch()["weight"][:, None]) > 0])
    left = losses[: int(len(losses) * 0.75)]
    assert after.loss / after.weight == pytest.approx(left.mean(), rel=1e-5)
    assert after.loss < 0.95 * whole.loss and after.sums == pytest.approx(whole.sums)
    state, _ = late.update({"steps": 4}, {})
    assert state == {"steps": 5}
    assert KEPT not in plain.prepare(Variables(params, {}, {}), rows, ctx, lambda fn, rows: rows)


def test_later_pieces_and_other_masked_pieces_do_not_matter():
    """A prediction sees the pieces before its position as the example shows them, and no others."""
    rows = batch()

    @jax.jit
    def states(text):
        inputs = Inputs(image=jnp.asarray(rows["image"]), text=text)
        params = jax.tree.map(jnp.asarray, random_params())
        return Captioner(model_config(depth=1, fused_layers=1)).apply({"params": params}, inputs)

    changed = rows["text"].copy()
    changed[:, 3] = Special.MASK
    one, other = np.asarray(states(rows["text"])), np.asarray(states(changed))
    np.testing.assert_array_equal(one[:, :3], other[:, :3])
    assert np.abs(one[:, 3:] - other[:, 3:]).max() > 1e-2
