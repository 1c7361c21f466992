"""Checkpoints do not depend on the mesh: on any other, the same bits are read and train alike."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests import tiny
from vlbeit_jax.errors import UsageError
from vlbeit_jax.training.checkpoint import Checkpointer
from vlbeit_jax.training.mesh import shardings
from vlbeit_jax.training.state import state_maker

MOVES = [
    ((8, 1, 1), (1, 1, 1)),
    ((1, 1, 1), (1, 8, 1)),
    ((4, 2, 1), (2, 4, 1)),
    pytest.param((1, 2, 4), (8, 1, 1), marks=pytest.mark.slow),
    pytest.param((2, 2, 2), (1, 4, 2), marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def task(world):
    """One block, which has the experts of all modalities: a state has every kind of array."""
    config = tiny.pretrain_config(world, schedule="pair")
    return tiny.changed(config, task={"model": {"depth": 1}}).task


@functools.cache
def state_on(task, shape):
    """A fresh state, and its shapes with shardings."""
    objectives = {name: each.objective.init_model_state() for name, each in task.streams().items()}
    make, abstract = state_maker(
        task.init, lambda: objectives, optax.adamw(1e-3), tiny.mesh_of(*shape)
    )
    return make, abstract


@pytest.mark.parametrize("shape", [(1, 8, 1), (2, 2, 2)], ids=str)
def test_a_fresh_state_is_the_same_on_every_mesh(task, shape):
    one, other = (jax.device_get(state_on(task, each)[0](7)) for each in ((1, 1, 1), shape))
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize(("before", "after"), MOVES, ids=str)
def test_a_state_moves_to_another_mesh_bit_for_bit(task, tmp_path, before, after):
    # Made on one device and moved: on each mesh, the program that makes it compiles for seconds.
    state = jax.device_put(state_on(task, (1, 1, 1))[0](7), shardings(state_on(task, before)[1]))
    writer = Checkpointer(tmp_path, keep_last=1, keep_every=0)
    writer.save(4, state.saved(), {"step": 4})
    writer.close()
    _, wanted = state_on(task, after)
    reader = Checkpointer(tmp_path, keep_last=1, keep_every=0)
    found = reader.restore_state(4, wanted)
    reader.close()
    for (path, leaf), place, old in zip(
        jax.tree_util.tree_leaves_with_path(found),
        jax.tree.leaves(wanted),
        jax.tree.leaves(state),
        strict=True,
    ):
        assert leaf.sharding == place.sharding, jax.tree_util.keystr(path)
        np.testing.assert_array_equal(
            np.asarray(leaf), np.asarray(old), err_msg=jax.tree_util.keystr(path)
        )


def test_parameters_of_another_shape_are_named(tmp_path):
    writer = Checkpointer(tmp_path, keep_last=1, keep_every=0)
    writer.save(4, {"params": {"a": jnp.ones((3, 2)), "b": jnp.ones(2)}}, {"step": 4})
    writer.close()
    reader = Checkpointer(tmp_path, keep_last=1, keep_every=0)
    with pytest.raises(
        UsageError,
        match=r"4 holds another model:\n  a: \(3, 2\) there, \(3, 4\) here\n"
        r"  c: nothing there, \(5,\) here",
    ):
        reader.restore(4, {"params": {"a": jnp.ones((3, 4)), "b": jnp.ones(2), "c": jnp.ones(5)}})
    reader.close()
