"""Looking up in a table that is cut over chips is looking up in the table."""

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from tests import tiny
from vlbeit_jax.ops.lookup import look_up, parts
from vlbeit_jax.tasks.abstract import abstract_step
from vlbeit_jax.training.sharding import on_mesh

VOCABULARY, WIDTH, BATCH, LENGTH = 24, 6, 16, 5


def parted(dtype):
    """(table, ids, change) -> rows and the table's gradient, on two copies of a table cut in four."""
    mesh = jax.make_mesh((2, 4), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    rows, table = PartitionSpec(("data", "fsdp")), PartitionSpec("fsdp")

    def local(table, ids, change):
        assert parts() == 4 and table.shape == (VOCABULARY // 4, WIDTH)
        found, pull = jax.vjp(lambda table: look_up(table, ids, dtype), table)
        return found, jax.lax.psum(pull(change.astype(dtype))[0], "data")

    return jax.jit(jax.shard_map(local, mesh=mesh, in_specs=(table, rows, rows), out_specs=(rows, table), check_vma=False)), mesh


@pytest.mark.parametrize("dtype", [jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)], ids=str)
def test_rows_and_gradients_are_those_of_the_whole_table(dtype):
    rng = np.random.default_rng(0)
    table, change = rng.normal(size=(VOCABULARY, WIDTH)).astype(np.float32), rng.normal(size=(BATCH, LENGTH, WIDTH)).astype(np.float32)
    ids = rng.integers(0, VOCABULARY, (BATCH, LENGTH))
    ids[:, 0], ids[0] = 7, (0, VOCABULARY - 1, 5, 6, 6)  # One that all ask for, both ends, both sides of a cut.
    assert parts() == 1
    run, mesh = parted(dtype)
    with jax.set_mesh(mesh):
        found, gradient = run(table, ids, change)
    assert found.dtype == dtype and gradient.dtype == jnp.float32
    np.testing.assert_array_equal(found, jnp.asarray(table[ids], dtype))
    expected = np.zeros((VOCABULARY, WIDTH))
    np.add.at(expected, ids, np.asarray(jnp.asarray(change, dtype), np.float64))
    np.testing.assert_allclose(gradient, expected, atol=1e-6)  # Summed in float32, whatever crossed.


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
        shapes = crossing_shapes(jax.make_jaxpr(step.step._step)(step.state, step.frozen, step.batches).jaxpr)
    assert step.state.params["language_head"]["kernel"].shape in shapes  # What does cross is found.
    assert whole not in shapes and (whole[0] // 4, whole[1]) in shapes  # Its parts are summed over copies.
