"""The mesh and the one table that places every array."""

import numpy as np
import optax
import pytest

from tests import tiny
from vlbeit_jax.config.common import MeshConfig
from vlbeit_jax.errors import UsageError
from vlbeit_jax.training.mesh import check_batch, make_mesh, param_shardings, put_batch
from vlbeit_jax.training.state import declarations, state_maker


@pytest.mark.parametrize(
    ("config", "shape"),
    [(MeshConfig(), (8, 1, 1)), (MeshConfig(fsdp=2, tensor=2), (2, 2, 2))],
    ids=str,
)
def test_mesh_takes_what_is_left_for_data(config, shape):
    assert tuple(make_mesh(config).shape.values()) == shape


@pytest.mark.parametrize(
    "config", [MeshConfig(data=3), MeshConfig(fsdp=3), MeshConfig(data=8, tensor=2)], ids=str
)
def test_mesh_that_does_not_make_the_devices_is_refused(config):
    with pytest.raises(UsageError, match="8 devices"):
        make_mesh(config)


def test_batch_that_the_mesh_does_not_divide_is_refused():
    check_batch("image", 16, 2, tiny.mesh_of(4, 2))
    with pytest.raises(UsageError, match=r"task.image.batch_size=12.*8"):
        check_batch("image", 12, 1, tiny.mesh_of(4, 2))


def test_dimension_that_the_mesh_does_not_divide_names_the_parameter(world):
    config = tiny.pretrain_config(world)
    task = tiny.changed(config, task={"model": {"width": 30, "heads": 3}}).task
    with pytest.raises(
        UsageError,
        match=r"encoder/block_0/attention/.*heads=3|encoder/block_0/attention/\w+ of shape",
    ):
        param_shardings(*declarations(task.init), tiny.mesh_of(1, 1, 2))


def test_parameters_and_moments_are_really_split(world):
    task = tiny.pretrain_config(world).task
    mesh = tiny.mesh_of(1, 4, 2)
    make, _ = state_maker(task.init, dict, optax.adam(1e-3), mesh)
    state = make(0)
    kernel = state.params["encoder"]["block_0"]["vision"]["up"]["kernel"]
    assert kernel.addressable_shards[0].data.size * 8 == kernel.size
    moment = state.opt_state[0].mu["encoder"]["block_0"]["vision"]["up"]["kernel"]
    assert moment.sharding == kernel.sharding


def test_rows_are_split_over_data_and_fsdp():
    mesh = tiny.mesh_of(2, 2, 2)
    rows = put_batch({"x": np.arange(8)}, mesh)["x"]
    assert {shard.data.shape for shard in rows.addressable_shards} == {(2,)}
    np.testing.assert_array_equal(rows, np.arange(8))
