"""Where every array lies: one table of logical axis to mesh axes, and a mesh of (data, fsdp, tensor)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax.linen import spmd
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vlbeit_jax.config import MeshConfig
from vlbeit_jax.data.shard import HostShard
from vlbeit_jax.errors import UsageError
from vlbeit_jax.objectives.base import Crossing
from vlbeit_jax.ops.vocabulary import PARTED_OVER

AXES = ("data", "fsdp", "tensor")
ROW_AXES = ("data", "fsdp")  # A batch's rows are cut along these, and gradients summed over them.

# Logical axis -> mesh axes. The batch is split over data and fsdp; parameters over fsdp and tensor.
RULES = (
    ("batch", ("data", "fsdp")),
    ("embed", "fsdp"),
    ("heads", "tensor"),
    ("ffn", "tensor"),
    ("vocab", "tensor"),
    (
        "word",
        PARTED_OVER,
    ),  # Whole rows, so that gradients of the largest table are cut along their memory.
    ("piece", (PARTED_OVER, "tensor")),  # Columns of the head of word pieces, and its bias.
    ("word_width", "tensor"),
    ("head", None),
)

Tree = Any


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """The devices of all hosts, or those that are given, as (data, fsdp, tensor).

    Raises:
      UsageError: the axes do not multiply to the number of devices.
    """
    count = jax.device_count() if devices is None else len(devices)
    fixed = config.fsdp * config.tensor
    data = count // fixed if config.data == -1 else config.data
    if data * fixed != count:
        raise UsageError(
            f"mesh data={config.data} x fsdp={config.fsdp} x tensor={config.tensor} does not make the {count} devices "
            "there are; change config.mesh (data=-1 takes what is left)"
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
            f"data.{name}.batch_size={batch_size} is not a multiple of run.accumulate={accumulate} x mesh data "
            f"{mesh.shape['data']} x fsdp {mesh.shape['fsdp']} = {accumulate * parts}"
        )


def padded_batch(batch_size: int, mesh: Mesh) -> int:
    """The next batch size that the mesh divides: evaluation fills batches up with rows of weight 0 anyway."""
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    return -(-batch_size // parts) * parts


@contextmanager
def on_mesh(mesh: Mesh) -> Iterator[None]:
    """While tracing: makes the activations' logical axes mean this mesh."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        yield


def on_each_chip(
    work: Callable[..., tuple[Tree, Tree]], mesh: Mesh, places: Tree, crossings: Tree
) -> Callable[..., tuple[Tree, Tree]]:
    """Makes of ``work(params, batches, rest) -> (gradients, sums)``, on whole parameters and some rows, one on all rows.

    Every chip works on its own rows; only tensor parallelism is left to XLA. Parameters are whole in it but for those that stay
    where they are, and lie as ``places`` says before and after, as do their gradients. Gradients and sums are summed over
    chips, once, at the end.

    Args:
      work: may not communicate, but about what stays.
      mesh: the chips.
      places: a ``NamedSharding`` per parameter.
      crossings: a ``Crossing`` per parameter.
    """
    axes = tuple(axis for axis in ROW_AXES if mesh.shape[axis] > 1)

    def along_rows(place: NamedSharding) -> PartitionSpec:
        return PartitionSpec(
            *(
                "fsdp" if "fsdp" in axes and "fsdp" in mesh_axes(entry) else None
                for entry in place.spec
            )
        )

    own = jax.tree.map(along_rows, places)

    def whole(shard: jax.Array, spec: PartitionSpec, crossing: Crossing) -> jax.Array:
        shard = shard.astype(crossing.parameter)
        if crossing.stays or "fsdp" not in tuple(spec):
            return shard
        return jax.lax.all_gather(shard, "fsdp", axis=tuple(spec).index("fsdp"), tiled=True)

    def summed(gradient: jax.Array, spec: PartitionSpec, crossing: Crossing) -> jax.Array:
        gradient = gradient.astype(crossing.gradient)
        if "fsdp" in tuple(spec) and not crossing.stays:
            gradient = jax.lax.psum_scatter(
                gradient, "fsdp", scatter_dimension=tuple(spec).index("fsdp"), tiled=True
            )
        return jax.lax.psum(
            gradient, tuple(axis for axis in axes if axis not in tuple(spec))
        ).astype(np.float32)

    def apart(params: Tree, batches: Tree, rest: Tree) -> tuple[Tree, Tree]:
        if not axes:
            return work(
                jax.tree.map(
                    lambda leaf, crossing: leaf.astype(crossing.parameter), params, crossings
                ),
                batches,
                rest,
            )

        def on_a_chip(params: Tree, batches: Tree, rest: Tree) -> tuple[Tree, Tree]:
            with nn.logical_axis_rules(
                [(name, None if name == "batch" else found) for name, found in RULES]
            ):
                gradients, sums = work(jax.tree.map(whole, params, own, crossings), batches, rest)
            return jax.tree.map(summed, gradients, own, crossings), jax.lax.psum(sums, axes)

        rows, everywhere = PartitionSpec(axes), PartitionSpec()
        options = {
            "axis_names": set(axes),
            "check_vma": False,
        }  # What comes out is summed over these axes, above.
        return jax.shard_map(
            on_a_chip,
            mesh=mesh,
            in_specs=(own, rows, everywhere),
            out_specs=(own, everywhere),
            **options,
        )(params, batches, rest)

    return apart


def shardings(abstract: Tree, mesh: Mesh) -> Tree:
    """A ``NamedSharding`` per leaf from the logical axes that parameters carry; leaves without axes are replicated.

    Raises:
      UsageError: a mesh axis does not divide a dimension, with the parameter's name.
    """
    specs = spmd.logical_to_mesh(nn.get_partition_spec(abstract), RULES)

    def place(path: Any, spec: PartitionSpec, leaf: Any) -> NamedSharding:
        for size, axes in zip(leaf.shape, spec, strict=False):
            parts = int(np.prod([mesh.shape[axis] for axis in mesh_axes(axes)]))
            if size % parts:
                raise UsageError(
                    f"parameter {jax.tree_util.keystr(path, simple=True, separator='/')} of shape {leaf.shape}: {size} is not "
                    f"a multiple of the {parts} devices along {axes}; change config.mesh"
                )
        return NamedSharding(mesh, spec)

    is_spec = lambda x: isinstance(x, PartitionSpec)  # noqa: E731
    return jax.tree_util.tree_map_with_path(place, specs, nn.unbox(abstract), is_leaf=is_spec)


def mesh_axes(entry: str | tuple[str, ...] | None) -> tuple[str, ...]:
    """The mesh axes along which one dimension is cut, from its entry in a ``PartitionSpec``."""
    return (entry,) if isinstance(entry, str) else entry or ()


def placement(tree: Tree) -> Tree:
    """The sharding of every leaf."""
    return jax.tree.map(lambda leaf: leaf.sharding, tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Rows over data and fsdp; the same for every array of a batch."""
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
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def put_replicated(tree: Tree, mesh: Mesh) -> Tree:
    """Arrays that every process has, whole on every device."""
    place = replicated(mesh)

    def put(leaf: Any) -> jax.Array:
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, place, lambda index: whole[index])

    return jax.tree.map(put, tree)
