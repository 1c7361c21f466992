"""Mesh and layout: one table from logical axes to the axes of a (data, fsdp, tensor) mesh."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.linen import spmd
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vlbeit_jax.config.common import MeshConfig
from vlbeit_jax.data.shard import HostShard
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.params import ParamInfo
from vlbeit_jax.ops.vocabulary import VOCABULARY_AXIS
from vlbeit_jax.shapes import Tree

AXES = ("data", "fsdp", "tensor")
ROW_AXES = ("data", "fsdp")  # A batch's rows are split along these; gradients are summed over them.

# Logical axis -> mesh axes. Rows are split over data and fsdp, parameters over fsdp and tensor.
RULES = (
    ("batch", ("data", "fsdp")),
    ("embed", "fsdp"),
    ("heads", "tensor"),
    ("ffn", "tensor"),
    ("vocab", "tensor"),
    # Whole rows of the word table, so that gradients of the largest table are contiguous.
    ("word", VOCABULARY_AXIS),
    ("word_width", "tensor"),
    # Columns of the word head, and its bias.
    ("piece", (VOCABULARY_AXIS, "tensor")),
    ("head", None),
)


def all_devices() -> Sequence[Any]:
    """Returns the devices of all hosts."""
    return jax.devices()


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """Returns the devices of all hosts, or those that are given, as (data, fsdp, tensor).

    Raises:
      UsageError: the axes do not multiply to the number of devices.
    """
    devices = all_devices() if devices is None else devices
    count = len(devices)
    fixed = config.fsdp * config.tensor
    data = count // fixed if config.data == -1 else config.data
    if data * fixed != count:
        raise UsageError(
            f"mesh data={config.data} x fsdp={config.fsdp} x tensor={config.tensor} "
            f"does not make the {count} devices there are; change config.mesh "
            "(data=-1 takes what is left)"
        )
    return jax.make_mesh(
        (data, config.fsdp, config.tensor),
        AXES,
        axis_types=(AxisType.Auto,) * len(AXES),
        devices=devices,
    )


def check_batch(name: str, batch_size: int, accumulate: int, mesh: Mesh) -> None:
    """Raises a ``UsageError`` if the mesh does not divide a microbatch."""
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch_size % (accumulate * parts):
        raise UsageError(
            f"task.{name}.batch_size={batch_size} is not a multiple of "
            f"run.accumulate={accumulate} x mesh data {mesh.shape['data']} x "
            f"fsdp {mesh.shape['fsdp']} = {accumulate * parts}"
        )


def padded_batch(batch_size: int, mesh: Mesh) -> int:
    """Rounds a batch size up to a multiple of the mesh; evaluation adds rows of weight 0."""
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    return -(-batch_size // parts) * parts


@contextmanager
def on_mesh(mesh: Mesh) -> Iterator[None]:
    """While tracing: makes the activations' logical axes mean this mesh."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        yield


def param_shardings(shapes: Tree, info: Tree, mesh: Mesh) -> Tree:
    """Returns a ``NamedSharding`` per parameter, from the logical axes that it declares.

    Args:
      shapes: of the parameters.
      info: a ``ParamInfo`` for each.
      mesh: of devices.

    Raises:
      UsageError: the mesh does not divide a dimension; the message names the parameter.
    """

    def sharding(path: Any, leaf: Any, declared: ParamInfo) -> NamedSharding:
        spec = spmd.logical_to_mesh_axes(declared.axes, RULES)
        assert spec is not None, "there are rules"
        for size, axes in zip(leaf.shape, spec, strict=True):
            parts = math.prod(mesh.shape[axis] for axis in mesh_axes(axes))
            if size % parts:
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                raise UsageError(
                    f"parameter {name} of shape {leaf.shape}: {size} is not a multiple of the "
                    f"{parts} devices along {axes}; change config.mesh"
                )
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(sharding, shapes, info)


def mesh_axes(entry: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The mesh axes along which one dimension is cut, from its entry in a ``PartitionSpec``."""
    return (entry,) if isinstance(entry, str) else entry or ()


def shardings(tree: Tree) -> Tree:
    """Returns the sharding of every leaf."""
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of rows over data and fsdp; the same for every array of a batch."""
    return NamedSharding(mesh, PartitionSpec(ROW_AXES))


def host_shard(mesh: Mesh) -> HostShard:
    """The rows of a batch that this process's devices hold, in any order of devices on the mesh."""
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    places = batch_sharding(mesh).addressable_devices_indices_map((parts,))
    return HostShard(
        tuple(sorted({rows[0].indices(parts)[0] for rows in places.values() if rows is not None})),
        parts,
    )


def put_batch(batch: dict[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """This host's rows as part of one global array per key."""
    place = batch_sharding(mesh)
    return {
        name: jax.make_array_from_process_local_data(place, rows) for name, rows in batch.items()
    }


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array that every device has as a whole."""
    return NamedSharding(mesh, PartitionSpec())


def put_replicated(tree: Tree, mesh: Mesh) -> Tree:
    """Arrays that every process has, whole on every device."""
    place = replicated(mesh)

    def put(leaf: Any) -> jax.Array:
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, place, lambda index: whole[index])

    return jax.tree.map(put, tree)
