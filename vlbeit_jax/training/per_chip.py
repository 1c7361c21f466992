"""Work that every chip does alone, on whole parameters and its own rows.

Left to itself, XLA inserts a reduction after every matrix product whose gradient is summed over
chips, in every stream. Here each chip sums gradients over streams and microbatches first, and one
reduction per step follows. Only tensor parallelism is left to XLA.

Parameters lie as their ``NamedSharding`` says before and after. Inside, each is gathered along
``fsdp``, in the type that it is used in; parts of the vocabulary stay where they are.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vlbeit_jax.models.params import ParamInfo, cast_params
from vlbeit_jax.training.mesh import ROW_AXES, RULES, mesh_axes
from vlbeit_jax.training.trainable import EVERYTHING, Trained

Tree = Any
# ``work(params, batches, rest) -> (gradients, sums)``
Work = Callable[[Tree, Tree, Tree], tuple[Tree, Tree]]


def per_chip_gradients(
    work: Work, mesh: Mesh, shardings: Tree, info: Tree, trained: Trained = EVERYTHING
) -> Work:
    """Returns ``work`` for all rows, from ``work`` on one chip's rows.

    Args:
      work: ``(params, batches, rest) -> (gradients, sums)``, on parameters and some rows; ``rest``
        is the same on all chips. It may communicate about parts of the vocabulary only.
      mesh: of chips.
      shardings: a ``NamedSharding`` per parameter.
      info: a ``ParamInfo`` per parameter.
      trained: the parameters that ``work`` returns gradients of.

    Returns:
      The same function on all rows. Gradients lie as the parameters do. Gradients and sums are
      summed over chips, once, at the end.
    """
    axes = row_axes(mesh)
    if not axes:  # One chip, or tensor parallelism alone: nothing to gather, nothing to reduce.
        return lambda params, batches, rest: work(cast_params(params, info), batches, rest)
    specs = jax.tree.map(lambda sharding: _fsdp_spec(sharding, axes), shardings)
    gradient_specs = trained.of(specs)

    def on_one_chip(params: Tree, batches: Tree, rest: Tree) -> tuple[Tree, Tree]:
        with nn.logical_axis_rules(_RULES_INSIDE):
            gradients, sums = work(jax.tree.map(gather_param, params, specs, info), batches, rest)

        def reduced(gradient: jax.Array, spec: PartitionSpec, declared: ParamInfo) -> jax.Array:
            return reduce_grad(gradient, spec, declared, axes)

        of_gradients = (gradients, gradient_specs, trained.of(info))
        return jax.tree.map(reduced, *of_gradients), jax.lax.psum(sums, axes)

    rows, everywhere = PartitionSpec(axes), PartitionSpec()
    return jax.shard_map(
        on_one_chip,
        mesh=mesh,
        in_specs=(specs, rows, everywhere),
        out_specs=(gradient_specs, everywhere),
        axis_names=set(axes),
        # The checker cannot see that the sums above are equal on all chips.
        check_vma=False,
    )


def per_row(
    mesh: Mesh, shardings: Tree, info: Tree, microbatches: int
) -> Callable[[Callable[[Tree, Tree, Tree], Tree], Tree, Tree, Tree], Tree]:
    """Returns ``run(fn, params, batch, rest)``: outputs of ``fn(params, rows, rest)`` for all rows.

    It computes no gradient. Chips work on their own rows, one microbatch after the other, so that
    it needs no more memory than a step does. ``fn`` must return arrays with one entry per row;
    ``rest`` is the same on all chips.

    Args:
      mesh: of chips.
      shardings: a ``NamedSharding`` per parameter.
      info: a ``ParamInfo`` per parameter.
      microbatches: of each chip's rows.
    """
    axes = row_axes(mesh)
    specs = jax.tree.map(lambda sharding: _fsdp_spec(sharding, axes), shardings)

    def run(fn: Callable[[Tree, Tree, Tree], Tree], params: Tree, batch: Tree, rest: Tree) -> Tree:
        def work(params: Tree, batch: Tree, rest: Tree) -> Tree:
            if microbatches == 1:
                return fn(params, batch, rest)
            parts = split_rows(batch, microbatches)
            outputs = jax.lax.map(lambda rows: fn(params, rows, rest), parts)
            return jax.tree.map(_join_rows, outputs)

        if not axes:
            return work(cast_params(params, info), batch, rest)

        def on_one_chip(params: Tree, batch: Tree, rest: Tree) -> Tree:
            with nn.logical_axis_rules(_RULES_INSIDE):
                return work(jax.tree.map(gather_param, params, specs, info), batch, rest)

        rows = PartitionSpec(axes)
        return jax.shard_map(
            on_one_chip,
            mesh=mesh,
            in_specs=(specs, rows, PartitionSpec()),
            out_specs=rows,
            axis_names=set(axes),
            # As above: the checker cannot see what the collectives of the vocabulary make equal.
            check_vma=False,
        )(params, batch, rest)

    return run


def split_rows(batch: Tree, parts: int) -> Tree:
    """Splits each array's rows into ``parts`` microbatches, along a new first axis."""

    # A size of -1 fails for an array without columns.
    def split(rows: jax.Array) -> jax.Array:
        return rows.reshape(parts, rows.shape[0] // parts, *rows.shape[1:])

    return jax.tree.map(split, batch)


def _join_rows(parts: jax.Array) -> jax.Array:
    """The opposite of ``split_rows``, for one array."""
    return parts.reshape(parts.shape[0] * parts.shape[1], *parts.shape[2:])


def row_axes(mesh: Mesh) -> tuple[str, ...]:
    """Returns the mesh axes of more than one device that a batch's rows are split along."""
    return tuple(axis for axis in ROW_AXES if mesh.shape[axis] > 1)


def gather_param(shard: jax.Array, spec: PartitionSpec, info: ParamInfo) -> jax.Array:
    """Returns a parameter whole; or this chip's part, if it is of the vocabulary.

    The cast comes first, so that no more bytes cross the links than are used.
    """
    shard = shard.astype(info.dtype)
    if info.vocab_parallel or "fsdp" not in tuple(spec):
        return shard
    return jax.lax.all_gather(shard, "fsdp", axis=tuple(spec).index("fsdp"), tiled=True)


def reduce_grad(
    gradient: jax.Array, spec: PartitionSpec, info: ParamInfo, axes: tuple[str, ...]
) -> jax.Array:
    """Sums a gradient over chips, in ``info.grad_dtype``; returns this chip's shard in float32.

    A gradient of a part of the vocabulary already holds the rows of all chips along ``fsdp``
    (``ops.vocabulary``), so only the other axes are left to sum over.
    """
    gradient = gradient.astype(info.grad_dtype)
    if "fsdp" in tuple(spec) and not info.vocab_parallel:
        dimension = tuple(spec).index("fsdp")
        gradient = jax.lax.psum_scatter(gradient, "fsdp", scatter_dimension=dimension, tiled=True)
    others = tuple(axis for axis in axes if axis not in tuple(spec))
    return jax.lax.psum(gradient, others).astype(jnp.float32)


# Inside, a chip's rows are all the rows there are.
_RULES_INSIDE = tuple((name, None if name == "batch" else axes) for name, axes in RULES)


def _fsdp_spec(sharding: NamedSharding, axes: tuple[str, ...]) -> PartitionSpec:
    """Returns how a parameter is split along ``fsdp``, which is manual if it is in ``axes``."""

    def along(entry: Any) -> str | None:
        return "fsdp" if "fsdp" in axes and "fsdp" in mesh_axes(entry) else None

    return PartitionSpec(*map(along, sharding.spec))
