"""Work that every chip does alone, on whole parameters and its own rows.

Left to itself, XLA inserts a reduction after every matrix product whose gradient is summed over
chips, in every stream. Here each chip sums gradients over streams and microbatches first, and one
reduction per step follows.

Outside, parameters and gradients are sharded as their ``NamedSharding`` says. Inside, three kinds
of mesh axes are treated differently:

- ``data`` and ``fsdp`` split rows. They are manual: the code below says what is sent along them.
- ``fsdp`` also splits parameters. A parameter is gathered along it before the work, in the type
  that it is used in, and its gradient is reduced and scattered along it after the work. Parts of
  the vocabulary are not gathered (``ops.vocabulary``).
- ``tensor`` splits heads and feed-forward networks. It is left to XLA.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vlbeit_jax.models.params import ParamInfo, cast_params
from vlbeit_jax.shapes import Tree
from vlbeit_jax.training.mesh import ROW_AXES, RULES, mesh_axes
from vlbeit_jax.training.trainable import EVERYTHING, Trained

# ``work(params, batches, rest) -> (gradients, sums)``, and for ``per_row`` ``-> outputs``.
Work = Callable[[Tree, Tree, Tree], tuple[Tree, Tree]]
RowWork = Callable[[Tree, Tree, Tree], Tree]


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
    specs = _fsdp_specs(shardings, axes)
    # Gradients of the trained parameters alone, each sharded as its parameter is.
    gradient_specs, gradient_info = trained.of(specs), trained.of(info)

    def on_one_chip(params: Tree, batches: Tree, rest: Tree) -> tuple[Tree, Tree]:
        with nn.logical_axis_rules(_RULES_INSIDE):
            whole = jax.tree.map(gather_param, params, specs, info)
            gradients, sums = work(whole, batches, rest)

        def reduced(gradient: jax.Array, spec: PartitionSpec, declared: ParamInfo) -> jax.Array:
            return reduce_grad(gradient, spec, declared, axes)

        gradients = jax.tree.map(reduced, gradients, gradient_specs, gradient_info)
        return gradients, jax.lax.psum(sums, axes)

    rows, everywhere = PartitionSpec(axes), PartitionSpec()
    return jax.shard_map(
        on_one_chip,
        mesh=mesh,
        in_specs=(specs, rows, everywhere),
        out_specs=(gradient_specs, everywhere),
        # The axes that are manual. ``tensor`` is not one of them, so XLA splits along it.
        axis_names=set(axes),
        # The checker cannot see that the sums above are equal on all chips.
        check_vma=False,
    )


def per_row(
    mesh: Mesh, shardings: Tree, info: Tree, microbatches: int
) -> Callable[[RowWork, Tree, Tree, Tree], Tree]:
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
    specs = _fsdp_specs(shardings, axes)

    def run(fn: RowWork, params: Tree, batch: Tree, rest: Tree) -> Tree:
        def work(params: Tree, batch: Tree, rest: Tree) -> Tree:
            if microbatches == 1:
                return fn(params, batch, rest)
            parts = split_rows(batch, microbatches)
            # A loop, so that the activations of one microbatch are freed before the next.
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
            # The checker cannot see what the collectives of the vocabulary make equal.
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
    """Undoes ``split_rows``, for one array."""
    return parts.reshape(parts.shape[0] * parts.shape[1], *parts.shape[2:])


def row_axes(mesh: Mesh) -> tuple[str, ...]:
    """Returns the mesh axes of more than one chip that a batch's rows are split along."""
    return tuple(axis for axis in ROW_AXES if mesh.shape[axis] > 1)


def gather_param(shard: jax.Array, spec: PartitionSpec, info: ParamInfo) -> jax.Array:
    """Returns the whole parameter; or this chip's part, if it is of the vocabulary."""
    # The cast comes before the gather: in bfloat16, half as many bytes cross the links.
    shard = shard.astype(info.dtype)
    if info.vocab_parallel or "fsdp" not in tuple(spec):
        return shard
    return jax.lax.all_gather(shard, "fsdp", axis=tuple(spec).index("fsdp"), tiled=True)


def reduce_grad(
    gradient: jax.Array, spec: PartitionSpec, info: ParamInfo, axes: tuple[str, ...]
) -> jax.Array:
    """Sums a gradient over chips, in ``info.grad_dtype``; returns this chip's shard in float32."""
    gradient = gradient.astype(info.grad_dtype)
    if "fsdp" in tuple(spec) and not info.vocab_parallel:
        # Each chip keeps the sum of its own shard alone, which is half the traffic of a psum.
        dimension = tuple(spec).index("fsdp")
        gradient = jax.lax.psum_scatter(gradient, "fsdp", scatter_dimension=dimension, tiled=True)
    # A parameter that ``fsdp`` does not split still has to be summed along it. The gradient of a
    # part of the vocabulary already holds the rows of all chips along it (``ops.vocabulary``).
    others = tuple(axis for axis in axes if axis not in tuple(spec))
    return jax.lax.psum(gradient, others).astype(jnp.float32)


# Inside, a chip's rows are all the rows there are, so the rows of activations are not split again.
_RULES_INSIDE = tuple((name, None if name == "batch" else axes) for name, axes in RULES)


def _fsdp_specs(shardings: Tree, axes: tuple[str, ...]) -> Tree:
    """Returns how each parameter is split along ``fsdp``, if that is among the manual ``axes``.

    ``shard_map`` takes no axis that is left to XLA, so ``tensor`` is not in the result.
    """

    def along(entry: Any) -> str | None:
        return "fsdp" if "fsdp" in axes and "fsdp" in mesh_axes(entry) else None

    def spec(sharding: NamedSharding) -> PartitionSpec:
        return PartitionSpec(*map(along, sharding.spec))

    return jax.tree.map(spec, shardings)
