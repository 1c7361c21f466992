"""A vocabulary that is cut over chips is looked up and predicted as a whole one."""

import functools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from tests import tiny
from vlbeit_jax.ops.vocabulary import (
    gather_rows,
    local_words,
    look_up,
    vocab_parallel_cross_entropy,
)
from vlbeit_jax.tasks.abstract import abstract_step
from vlbeit_jax.training.mesh import on_mesh

VOCABULARY, WIDTH, BATCH, LENGTH = 24, 6, 16, 5


def parted(dtype):
    """(table, ids, change) -> rows and the table's gradient; two replicas of four shards each."""
    mesh = jax.make_mesh((2, 4), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    rows, table = PartitionSpec(("data", "fsdp")), PartitionSpec("fsdp")

    def local(table, ids, change):
        assert table.shape == (VOCABULARY // 4, WIDTH)
        found, pull = jax.vjp(lambda table: look_up(table, ids, dtype, 4), table)
        return found, jax.lax.psum(pull(change.astype(dtype))[0], "data")

    return jax.jit(
        jax.shard_map(
            local, mesh=mesh, in_specs=(table, rows, rows), out_specs=(rows, table), check_vma=False
        )
    ), mesh


@pytest.mark.parametrize("dtype", [jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)], ids=str)
def test_rows_and_gradients_are_those_of_the_whole_table(dtype):
    rng = np.random.default_rng(0)
    table, change = (
        rng.normal(size=(VOCABULARY, WIDTH)).astype(np.float32),
        rng.normal(size=(BATCH, LENGTH, WIDTH)).astype(np.float32),
    )
    ids = rng.integers(0, VOCABULARY, (BATCH, LENGTH))
    ids[:, 0], ids[0] = (
        7,
        (0, VOCABULARY - 1, 5, 6, 6),
    )  # One that all ask for, both ends, both sides of a cut.
    run, mesh = parted(dtype)
    with jax.set_mesh(mesh):
        found, gradient = run(table, ids, change)
    assert found.dtype == dtype and gradient.dtype == jnp.float32
    np.testing.assert_array_equal(found, jnp.asarray(table[ids], dtype))
    expected = np.zeros((VOCABULARY, WIDTH))
    np.add.at(expected, ids, np.asarray(jnp.asarray(change, dtype), np.float64))
    # The gradient is summed in float32, whatever type is communicated.
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def states_and_targets():
    """(states, kernel, targets) of whole numbers, so that logits are exact.

    Many answers tie for the argmax, on several shards of the vocabulary.
    """
    rng = np.random.default_rng(1)
    states, kernel = (
        rng.integers(-2, 3, shape).astype(np.float32)
        for shape in ((BATCH, LENGTH, WIDTH), (WIDTH, VOCABULARY))
    )
    targets = rng.integers(0, VOCABULARY - 2, (BATCH, LENGTH))
    targets[0] = 0, VOCABULARY // 4 - 1, VOCABULARY // 4, 11, 13
    kernel[:, 13] = kernel[
        :, 11
    ]  # The last word of a part and one of the next: of equal ones the first counts.
    states[0, 3:] = 2 * kernel[:, 11]
    states[1, 0] = 1000  # Logits whose exponential overflows.
    return states, kernel, jnp.asarray(targets, jnp.int32)


def predicted(parts, states, kernel, targets):
    """Predictions, and gradients of a weighted sum of losses; the last two words are padding."""

    def loss(states, kernel):
        logits = jnp.einsum("rmd,dv->rmv", gather_rows(states, parts), kernel)
        real = local_words(logits.shape[-1], parts) < VOCABULARY - 2
        logits = jnp.where(real, logits, -jnp.inf)
        found = vocab_parallel_cross_entropy(logits, targets, parts)
        return (found.loss * (1 + targets % 3)).sum(), found

    gradients, found = jax.grad(loss, argnums=(0, 1), has_aux=True)(states, kernel)
    return found, gradients


def predicted_in_parts(*arrays):
    """The same with a vocabulary cut in four and a quarter of the rows on each chip."""
    mesh = jax.make_mesh((4,), ("fsdp",), axis_types=(AxisType.Auto,))
    rows, kernels = PartitionSpec("fsdp"), PartitionSpec(None, "fsdp")
    specs = {"in_specs": (rows, kernels, rows), "out_specs": (rows, (rows, kernels))}
    run = jax.shard_map(functools.partial(predicted, 4), mesh=mesh, **specs, check_vma=False)
    with jax.set_mesh(mesh):
        return jax.jit(run)(*arrays)


def test_grades_and_gradients_are_those_of_the_whole_vocabulary():
    arrays = states_and_targets()
    found, gradients = predicted_in_parts(*arrays)
    expected, wanted = predicted(1, *arrays)
    assert (
        2 < expected.correct.sum() < expected.correct.size / 2
        and expected.correct[0, 3]
        and not expected.correct[0, 4]
    )
    np.testing.assert_array_equal(found.correct, expected.correct)
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-5, atol=1e-5)
    for one, other in zip(gradients, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * np.abs(other).max())
    states, kernel, targets = arrays
    elsewhere, _ = predicted_in_parts(
        states, kernel, (targets + VOCABULARY // 4) % (VOCABULARY - 2)
    )
    assert (
        np.abs(elsewhere.loss - expected.loss).max() > 1
    )  # The same word of the next part is another word.


def crossing_shapes(jaxpr):
    """Shapes of all that goes into a collective or comes out of it, in nested functions too."""
    found = set()
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("all_gather", "reduce_scatter", "psum", "psum_invariant"):
            found |= {each.aval.shape for each in (*equation.invars, *equation.outvars)}
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            found |= crossing_shapes(inner)
    return found


def test_the_table_does_not_cross_in_a_step(world):
    mesh = tiny.mesh_of(2, 4)
    step = abstract_step(tiny.pretrain_config(world, schedule="text"), mesh)
    whole = step.state.params["text_embed"]["words"].shape
    with on_mesh(mesh):
        shapes = crossing_shapes(
            jax.make_jaxpr(step.step._step)(step.state, step.frozen, step.batches).jaxpr
        )
    assert step.state.params["text_embed"]["positions"].shape in shapes  # What does cross is found.
    for cut in (whole, whole[::-1]):  # The look-up's and the head's.
        assert cut not in shapes
    assert {
        (whole[0] // 4, whole[1]),
        (whole[1], whole[0] // 4),
    } <= shapes  # Their parts are summed over copies.
