"""Losses that compare rows see all of the batch, however devices and microbatches split it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.objectives.retrieval_batches import (
    NETWORK,
    ROWS,
    assert_same_gradients,
    in_parts,
    init,
    random_params,
    retrieval_batch,
)
from tests.training.linear import Training
from vlbeit_jax.objectives.base import ROW, Term
from vlbeit_jax.objectives.contrastive import Contrastive, Rows, clip_losses
from vlbeit_jax.objectives.matching import ContrastiveAndMatching
from vlbeit_jax.training.mesh import on_mesh, put_batch, shardings
from vlbeit_jax.training.per_chip import per_row

ONE, EIGHT = (1, 1, 1), (4, 2, 1)
SPLITS = [
    (ONE, 4),
    ((2, 2, 2), 2),
    *((EIGHT, parts) for parts in (1, 2)),
    *(
        pytest.param(*each, marks=pytest.mark.slow)
        for each in ((ONE, 1), (ONE, 2), ((2, 1, 1), 1), ((1, 4, 1), 2))
    ),
]
BOTH = ContrastiveAndMatching(NETWORK, negatives_among=8)


class OwnNegatives(Contrastive):
    """A control: contrasts a row with those of its own device and microbatch."""

    def prepare(self, variables, batch, ctx, per_row):
        return batch

    def __call__(self, variables, batch, ctx):
        image, text = self.embed(variables, batch, ctx)
        scale, weight = variables.params["head"]["logit_scale"], batch["weight"]
        rows = Rows(image, text, batch["picture"], weight)
        found = clip_losses(rows, rows, scale)
        return {"contrast": Term((found.loss * weight).sum(), weight.sum())}, {}


class WholeLossOnEachDevice(OwnNegatives):
    """A control: each device gathers all rows and adds the whole loss."""

    whole_batch = True

    def __call__(self, variables, batch, ctx):
        image, text = self.embed(variables, batch, ctx)
        given = (image, text, batch["picture"], batch["weight"])
        if ctx.row_axes:
            given = [jax.lax.all_gather(each, ctx.row_axes, tiled=True) for each in given]
        rows, scale = Rows(*given), variables.params["head"]["logit_scale"]
        loss = clip_losses(rows, rows, scale).loss.sum()
        return {"contrast": Term(loss, batch["weight"].sum())}, {}


def by_the_step(objective, shape, parts):
    """Losses and gradients by a step of plain descent: at rate 1, a change is a gradient."""
    training = Training(
        shape, accumulate=parts, optimizer=optax.sgd(1.0), objective=objective, init=init
    )
    state = training.make(0)
    places = jax.tree.map(lambda leaf: leaf.sharding, state.params)
    state = state.replace(params=jax.device_put(random_params(), places))
    state, metrics = training(state, retrieval_batch())
    assert int(metrics["refused"]) == 0
    gradients = jax.tree.map(np.subtract, random_params(), jax.device_get(state.params))
    terms = {name for name in metrics if name.endswith("/loss")}
    return {name: float(metrics[name]) for name in terms}, gradients


@functools.cache
def whole(objective):
    """The same without any mesh."""
    means, gradients = in_parts(objective, random_params(), retrieval_batch(), 1)
    losses = {f"{name}/loss": float(term["loss"]) for name, term in means.items()}
    return losses, gradients


def assert_same(found, expected):
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    assert_same_gradients(found[1], expected[1])


@pytest.mark.parametrize(("shape", "parts"), SPLITS, ids=str)
def test_the_losses_are_those_of_the_whole_batch(shape, parts):
    assert set(whole(BOTH)[0]) == {"contrast/loss", "matching/loss"}
    assert_same(by_the_step(BOTH, shape, parts), whole(BOTH))


@pytest.mark.parametrize(
    ("shape", "parts"), [((1, 4, 1), 1), ((2, 2, 2), 1), (EIGHT, 1), (EIGHT, 2)], ids=str
)
def test_devices_exchange_embeddings_with_and_without_a_first_pass(shape, parts):
    """There is a first pass if there are microbatches, or matching, as in the test above."""
    alone = Contrastive(NETWORK)
    assert_same(by_the_step(alone, shape, parts), whole(alone))


def test_a_device_compares_its_own_rows_alone():
    """Two of sixteen rows against all: no product of all rows with all stands in the program."""
    training = Training(EIGHT, objective=Contrastive(NETWORK), init=init)
    lowered = training.step.lower(training.abstract, {}, training.put(retrieval_batch()))
    program = lowered.compile().as_text()
    assert f"f32[{ROWS // 8},{ROWS}]" in program
    assert f"f32[{ROWS},{ROWS}]" not in program


@pytest.mark.parametrize(("shape", "parts"), [(EIGHT, 1), (ONE, 4)], ids=str)
def test_own_negatives_give_another_loss(shape, parts):
    objective, expected = OwnNegatives(NETWORK), whole(Contrastive(NETWORK))
    assert_same(by_the_step(objective, ONE, 1), expected)
    with pytest.raises(AssertionError):
        assert_same(by_the_step(objective, shape, parts), expected)


def test_the_whole_loss_on_each_device_counts_it_eight_times():
    objective, expected = WholeLossOnEachDevice(NETWORK), whole(Contrastive(NETWORK))
    assert_same(by_the_step(objective, ONE, 1), expected)
    found = by_the_step(objective, EIGHT, 1)
    with pytest.raises(AssertionError):
        assert_same(found, expected)
    assert_same(jax.tree.map(lambda leaf: leaf / 8, found), expected)


def test_an_objective_that_needs_its_whole_batch_gets_it_with_microbatches_too():
    """Otherwise each half would be compared with itself alone."""
    objective = WholeLossOnEachDevice(NETWORK)
    assert_same(by_the_step(objective, ONE, 2), by_the_step(objective, ONE, 1))


@pytest.mark.parametrize(("group", "exchanged"), [(2, False), (4, True)])
def test_groups_that_lie_on_one_device_exchange_no_images(group, exchanged):
    """Eight devices with two rows each; pixels are the only bytes in the program."""
    objective = dataclasses.replace(BOTH, negatives_among=group)
    training = Training(EIGHT, objective=objective, init=init)
    lowered = training.step.lower(training.abstract, {}, training.put(retrieval_batch()))
    program = lowered.compile().as_text().splitlines()
    collectives = ("all-gather(", "all-to-all(", "collective-permute(", "all-reduce(")
    moved = [line for line in program if any(name in line for name in collectives)]
    assert any("u8[" in line.split("=")[1] for line in moved) is exchanged


@pytest.mark.parametrize(("shape", "parts"), [(ONE, 1), (ONE, 4), (EIGHT, 2)], ids=str)
def test_per_row_keeps_the_order_of_rows(shape, parts):
    training = Training(shape, objective=BOTH, init=init)
    params, mesh = training.make(0).params, training.mesh
    run = per_row(mesh, shardings(params), training.info, parts)
    batch = retrieval_batch()
    rows = put_batch({**batch, ROW: np.arange(ROWS)}, mesh)

    def fn(params, rows, rest):
        return {"row": rows[ROW], "text": rest * rows["text"] @ params["text"]}

    with on_mesh(mesh):
        found = jax.jit(lambda *inputs: run(fn, *inputs))(params, rows, jnp.float32(2))
    np.testing.assert_array_equal(found["row"], np.arange(ROWS))
    expected = 2 * batch["text"] @ np.asarray(params["text"])
    np.testing.assert_allclose(found["text"], expected, rtol=1e-5, atol=1e-5)
