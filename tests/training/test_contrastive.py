"""A contrastive loss sees all rows of the batch, however devices and microbatches split it."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.training.linear import Training
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.params import declare
from vlbeit_jax.objectives.base import ROW, Context, Objective, Term, Variables, uniform_per_row
from vlbeit_jax.training.mesh import on_mesh, put_batch, shardings
from vlbeit_jax.training.per_chip import per_row
from vlbeit_jax.training.step import stream_key

ROWS, WIDTH, SHARED = 32, 8, 4
ONE, EIGHT = (1, 1, 1), (4, 2, 1)
SPLITS = [
    *((ONE, parts) for parts in (1, 2, 4)),
    *(((2, 1, 1), 1), ((1, 4, 1), 2), ((2, 2, 2), 2)),
    *((EIGHT, parts) for parts in (1, 2, 4)),
]


class TwoTowers(nn.Module):
    """Images and texts to unit vectors of one space."""

    @nn.compact
    def __call__(self, image, text, keep):
        def embed(name, x):
            init = nn.initializers.normal(0.5)
            kernel = self.param(name, declare(init, "embed", None), (WIDTH, SHARED))
            z = jnp.where(keep, x, 0) @ kernel
            return z / jnp.linalg.norm(z, axis=-1, keepdims=True)

        self.param("logit_scale", declare(nn.initializers.constant(1.0)), ())
        return embed("image", image), embed("text", text)


def clip_loss(image, text, logit_scale, weight):
    """The total of the rows' losses, and each of them."""
    logits = jnp.exp(logit_scale) * image @ text.T
    rows = sum(jax.nn.logsumexp(each, axis=1) - jnp.diagonal(each) for each in (logits, logits.T))
    return (rows * weight / 2).sum(), rows * weight / 2


@dataclasses.dataclass(frozen=True)
class Contrastive(Objective):
    """CLIP's loss in two passes: first without gradient for all rows, then as a sum over rows."""

    def weights(self, batch):
        return {"contrast": batch["weight"].sum()}

    def embed(self, variables, rows, ctx):
        keep = uniform_per_row(ctx.key, rows[ROW], WIDTH) < 0.8
        return TwoTowers().apply({"params": variables.params}, rows["image"], rows["text"], keep)

    def prepare(self, variables, batch, ctx, per_row):
        image, text = per_row(self.embed, batch)
        gradient = jax.value_and_grad(clip_loss, argnums=(0, 1, 2), has_aux=True)
        scale = variables.params["logit_scale"]
        (_, loss), (d_image, d_text, d_scale) = gradient(image, text, scale, batch["weight"])
        shares = jnp.full(len(loss), d_scale / len(loss))
        return batch | {"loss": loss, "d_image": d_image, "d_text": d_text, "d_scale": shares}

    def __call__(self, variables, batch, ctx):
        # The same draws as in the first pass, so these are the same embeddings. The second line
        # has the value of the loss, and the gradient of a linear function of the embeddings.
        image, text = self.embed(variables, batch, ctx)
        linear = (image * batch["d_image"]).sum() + (text * batch["d_text"]).sum()
        linear += (variables.params["logit_scale"] * batch["d_scale"]).sum()
        loss = batch["loss"].sum() + linear - jax.lax.stop_gradient(linear)
        return {"contrast": Term(loss, batch["weight"].sum())}, {}


class OwnNegatives(Contrastive):
    """A control: contrasts a row with those of its own device and microbatch."""

    def prepare(self, variables, batch, ctx, per_row):
        return batch

    def __call__(self, variables, batch, ctx):
        image, text = self.embed(variables, batch, ctx)
        scale, weight = variables.params["logit_scale"], batch["weight"]
        loss, _ = clip_loss(image, text, scale, weight)
        return {"contrast": Term(loss, weight.sum())}, {}


class WholeLossOnEachDevice(OwnNegatives):
    """A control: each device gathers all rows and adds the whole loss."""

    whole_batch = True

    def embed(self, variables, rows, ctx):
        found = super().embed(variables, rows, ctx)
        if not ctx.row_axes:
            return found
        return tuple(jax.lax.all_gather(each, ctx.row_axes, tiled=True) for each in found)

    def __call__(self, variables, batch, ctx):
        image, text = self.embed(variables, batch, ctx)
        loss, _ = clip_loss(image, text, variables.params["logit_scale"], jnp.ones(len(image)))
        return {"contrast": Term(loss, batch["weight"].sum())}, {}


def init(key):
    x = jnp.zeros((1, WIDTH))
    return TwoTowers().init(key, x, x, x > 0)["params"]


def batch():
    rng = np.random.default_rng(0)
    image, noise = rng.normal(size=(2, ROWS, WIDTH)).astype(np.float32)
    return {"image": image, "text": image + noise, "weight": np.ones(ROWS, np.float32)}


@functools.cache
def direct():
    """Loss and gradients by differentiating the loss of the whole batch."""
    rows = {**batch(), ROW: jnp.arange(ROWS)}
    ctx = Context(stream_key(0, "toy", jnp.int32(0)))

    def loss(params):
        image, text = Contrastive().embed(Variables(params, {}, {}), rows, ctx)
        return clip_loss(image, text, params["logit_scale"], rows["weight"])[0] / ROWS

    params = nn.unbox(init(jax.random.key(0)))
    return jax.device_get(jax.jit(jax.value_and_grad(loss))(params))


def by_the_step(objective, shape, parts):
    """The same by one train step: with plain descent of rate 1, a change is a gradient."""
    training = Training(
        shape, accumulate=parts, optimizer=optax.sgd(1.0), objective=objective, init=init
    )
    state = training.make(0)
    before = jax.device_get(state.params)
    state, metrics = training(state, batch())
    assert int(metrics["skipped"]) == 0
    gradients = jax.tree.map(np.subtract, before, jax.device_get(state.params))
    return float(metrics["contrast/loss"]), gradients


def assert_same(found, expected):
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    for name, gradient in expected[1].items():
        error = np.abs(found[1][name] - gradient).max()
        assert error < 2e-6 * max(np.abs(leaf).max() for leaf in expected[1].values()), name


@pytest.mark.parametrize(("shape", "parts"), SPLITS, ids=str)
def test_the_loss_is_that_of_the_whole_batch(shape, parts):
    assert_same(by_the_step(Contrastive(), shape, parts), direct())


@pytest.mark.parametrize(("shape", "parts"), [(EIGHT, 1), (ONE, 4)], ids=str)
def test_own_negatives_give_another_loss(shape, parts):
    assert_same(by_the_step(OwnNegatives(), ONE, 1), direct())
    with pytest.raises(AssertionError):
        assert_same(by_the_step(OwnNegatives(), shape, parts), direct())


def test_the_whole_loss_on_each_device_counts_it_eight_times():
    assert_same(by_the_step(WholeLossOnEachDevice(), ONE, 1), direct())
    found = by_the_step(WholeLossOnEachDevice(), EIGHT, 1)
    with pytest.raises(AssertionError):
        assert_same(found, direct())
    assert_same(jax.tree.map(lambda leaf: leaf / 8, found), direct())


def test_an_objective_that_needs_its_whole_batch_refuses_microbatches():
    with pytest.raises(UsageError, match="stream toy needs its whole batch .* run.accumulate=2"):
        by_the_step(WholeLossOnEachDevice(), ONE, 2)


@pytest.mark.parametrize(("shape", "parts"), [(ONE, 1), (ONE, 4), (EIGHT, 4)], ids=str)
def test_per_row_keeps_the_order_of_rows(shape, parts):
    training = Training(shape, objective=Contrastive(), init=init)
    params, mesh = training.make(0).params, training.mesh
    run = per_row(mesh, shardings(params), training.info, parts)
    rows = put_batch({**batch(), ROW: np.arange(ROWS)}, mesh)

    def fn(params, rows, rest):
        return {"row": rows[ROW], "image": rest * rows["image"] @ params["image"]}

    with on_mesh(mesh):
        found = jax.jit(lambda *inputs: run(fn, *inputs))(params, rows, jnp.float32(2))
    np.testing.assert_array_equal(found["row"], np.arange(ROWS))
    expected = 2 * batch()["image"] @ np.asarray(params["image"])
    np.testing.assert_allclose(found["image"], expected, rtol=1e-5, atol=1e-6)
