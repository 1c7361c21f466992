"""Attention for long rows as one TPU kernel: a block of queries meets all keys on the chip.

``fused_attention`` holds the weights of a whole head, L x L. That is too much from about 600 tokens
on, which an image of 384 pixels has. Here, a program of the grid takes one row of the batch and the
heads that share a register. Their keys and values are on the chip as a whole, and a loop takes one
block of queries after the other. So the softmax of a query is computed at once, without the
running maximum of a flash kernel, and the backward pass needs one loop as well.

The kernel takes what ``einsum`` takes: valid keys of each row, a mask of queries by keys, and a
bias of the logits, with its gradient. ``vmem_bytes`` tells what they need on the chip.

Only the weights of a block of queries exist at a time: 0.9 MB at 1601 tokens.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from vlbeit_jax.ops import kernel_memory
from vlbeit_jax.ops.device import LANES, on_own_part, on_tpu
from vlbeit_jax.ops.fused_attention import own_lanes, product
from vlbeit_jax.ops.hidden import HIDDEN
from vlbeit_jax.shapes import Array, Bool, Float

# What a kernel may get besides ``projected``, in this order.
OPTIONS = ("valid", "mask", "bias")


def long_attention(
    projected: Float[Array, "B L Q"],
    shift: Float[Array, " Q"],
    valid: Bool[Array, "B L"] | None,
    bias: Float[Array, "H L L"] | None,
    mask: Bool[Array, "L L"] | None,
    heads: int,
) -> Float[Array, "B L D"]:
    """``attention`` as one kernel. Rows and heads may be on several chips.

    Without a TPU, the kernel is emulated, for tests.
    """
    per_head = projected.shape[2] // heads
    given = {
        "valid": (valid, ("batch",)),
        "mask": (mask, ()),
        "bias": (bias, ("heads",)),
    }
    present = {name: each for name, each in given.items() if each[0] is not None}

    def local(projected: Array, shift: Array, *arrays: Array) -> Array:
        options = dict(zip(present, arrays, strict=True))
        if "valid" in options:
            options["valid"] = options["valid"][:, None].astype(jnp.int32)
        if "mask" in options:
            options["mask"] = options["mask"].astype(jnp.int8)
        if "bias" in options:
            options["bias"] = options["bias"].astype(jnp.float32)
        return _attention(projected, shift, options, projected.shape[2] // per_head)

    inputs = (projected, shift, *(array for array, _ in present.values()))
    layouts = (("batch", None, "heads"), ("heads",), *(layout for _, layout in present.values()))
    return on_own_part(local, inputs, layouts)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _attention(projected: Array, shift: Array, options: Mapping[str, Array], heads: int) -> Array:
    return _forward(projected, shift, options, heads)[0]


def _forward(
    projected: Array, shift: Array, options: Mapping[str, Array], heads: int
) -> tuple[Array, tuple]:
    shifted = projected + shift.astype(projected.dtype)
    (out,) = call_kernel("forward", heads, options, (shifted,))
    return out, (shifted, shift, options)


def _backward(heads: int, saved: tuple, change: Array) -> tuple:
    shifted, shift, options = saved
    to_projected, to_shift, *to_bias = call_kernel("backward", heads, options, (shifted, change))
    to_options: dict[str, Array | None] = dict.fromkeys(options)
    if to_bias:
        to_options["bias"] = to_bias[0]
    # The kernel has summed over the tokens of each row; what is left is the sum over rows.
    return to_projected, to_shift.sum(axis=(0, 1)).astype(shift.dtype), to_options


_attention.defvjp(_forward, _backward)


def call_kernel(
    direction: str, heads: int, options: Mapping[str, Array], inputs: tuple[Array, ...]
) -> Any:
    """Calls one of the kernels on one chip, with a program for each row and group of heads.

    Args:
      direction: "forward" or "backward".
      heads: on this chip.
      options: "valid", Int[B, 1, L], and "mask", Int8[L, L], above 0 where a key may be attended
        to; "bias", Float32[H, L, L]. Each may be missing.
      inputs: ``projected`` with its biases; for "backward" also the gradient of the result.

    Returns:
      Forward: the result. Backward: the gradient of ``projected``, its sum over tokens, and the
      gradient of the bias if there is one.
    """
    batch, length, columns = inputs[0].shape
    groups = columns // (3 * LANES)
    assert columns == groups * 3 * LANES, inputs[0].shape
    dtype, names = inputs[0].dtype, [name for name in OPTIONS if name in options]
    biased = "bias" in options

    def part(width: int) -> pl.BlockSpec:
        return pl.BlockSpec((None, length, width), lambda group, row: (row, 0, group))

    specs = {
        "valid": pl.BlockSpec((None, 1, length), lambda group, row: (row, 0, 0)),
        "mask": pl.BlockSpec((length, length), lambda group, row: (0, 0)),
        # The rows of the batch are the inner loop of the grid, so that a group's bias stays on the
        # chip for all of them, and its gradient is summed there.
        "bias": pl.BlockSpec((heads // groups, length, length), lambda group, row: (group, 0, 0)),
    }
    projected, result = part(3 * LANES), part(LANES)
    sums = pl.BlockSpec((None, 1, 3 * LANES), lambda group, row: (row, 0, group))
    if direction == "forward":
        kernel, taken, scratch = _forward_kernel, [projected], []
        out = [(result, jax.ShapeDtypeStruct((batch, length, columns // 3), dtype))]
    else:
        kernel, taken = _backward_kernel, [projected, result]
        scratch = [pltpu.VMEM((length, LANES), jnp.float32)] * 2
        out = [
            (projected, jax.ShapeDtypeStruct((batch, length, columns), dtype)),
            (sums, jax.ShapeDtypeStruct((batch, 1, columns), jnp.float32)),
        ]
        if biased:
            out.append((specs["bias"], jax.ShapeDtypeStruct(options["bias"].shape, jnp.float32)))
    return pl.pallas_call(
        functools.partial(kernel, columns // 3 // heads, names),
        # plan.kernels finds a kernel by this name.
        name="_".join([direction, "long", "kernel", str(heads), *names]),
        compiler_params=pltpu.CompilerParams(
            # The gradient of a bias is a sum over rows, which no two cores can share.
            dimension_semantics=("parallel", "arbitrary" if biased else "parallel"),
            vmem_limit_bytes=kernel_memory.vmem_bytes(
                length, dtype, biased * heads // groups, "mask" in options
            ),
        ),
        grid=(groups, batch),
        in_specs=[*taken, *(specs[name] for name in names)],
        out_specs=[spec for spec, _ in out],
        out_shape=[shape for _, shape in out],
        scratch_shapes=scratch,
        interpret=not on_tpu(),
    )(*inputs, *(options[name] for name in names))


def _over_blocks(length: int, work: Callable[[Any], None]) -> None:
    """Calls ``work`` with the place of each block of queries."""
    queries = kernel_memory.QUERIES
    looped, rest = kernel_memory.block_lengths(length)
    if looped:

        @pl.loop(0, looped)
        def _(index: Array) -> None:
            work(pl.ds(pl.multiple_of(index * queries, queries), queries))

    work(pl.ds(looped * queries, rest))


def _forward_kernel(width: int, names: list[str], projected: Any, *rest: Any) -> None:
    """Computes a row of the batch for one group of heads; ``rest`` has options and result."""
    *given, out = rest
    options = dict(zip(names, given, strict=True))

    def work(block: Any) -> None:
        q, k, v = projected[block, _lanes(0)], projected[..., _lanes(1)], projected[..., _lanes(2)]
        # Each head adds into its own lanes; it is zero in the others'.
        mixed = jnp.zeros(q.shape, jnp.float32)
        for head, lanes in enumerate(own_lanes(width)):
            own_q = jnp.where(lanes, q * width**-0.5, 0)
            raised, total = _raised(own_q, k, options, head, block)
            # The result has fewer numbers to divide than the weights.
            mixed += product(raised.astype(v.dtype), jnp.where(lanes, v, 0), 1, 0) / total
        out[block, :] = mixed.astype(out.dtype)

    _over_blocks(projected.shape[0], work)


def _backward_kernel(width: int, names: list[str], projected: Any, change: Any, *rest: Any) -> None:
    """Computes the gradient of what ``_forward_kernel`` does; ``change`` is that of the result.

    ``rest`` has the options; the gradient of ``projected``, its sum over tokens and, if there is a
    bias, the gradient of that; and two scratch arrays.
    """
    given, rest = rest[: len(names)], rest[len(names) :]
    options = dict(zip(names, given, strict=True))
    # Every block of queries adds to the gradients of all keys and values, so these stay on the chip
    # in float32 until the last block is done.
    (out, sums), (dk, dv) = rest[:2], rest[-2:]
    dbias = rest[2] if "bias" in options else None
    dk[:, :], dv[:, :] = (jnp.zeros(dk.shape, jnp.float32) for _ in range(2))
    sums[:, :] = jnp.zeros(sums.shape, jnp.float32)
    if dbias is not None:
        # The rows of the batch follow each other with the same block of ``dbias``.

        @pl.when(pl.program_id(1) == 0)
        def _() -> None:
            dbias[...] = jnp.zeros(dbias.shape, jnp.float32)

    def work(block: Any) -> None:
        q, k, v = projected[block, _lanes(0)], projected[..., _lanes(1)], projected[..., _lanes(2)]
        dmixed = change[block, :]
        dq = jnp.zeros(q.shape, jnp.float32)
        for head, lanes in enumerate(own_lanes(width)):
            own_q = jnp.where(lanes, q * width**-0.5, 0)
            own_k, own_dmixed = jnp.where(lanes, k, 0), jnp.where(lanes, dmixed, 0)
            raised, total = _raised(own_q, k, options, head, block)
            weights, dweights = raised / total, product(own_dmixed, v, 1, 1)
            # The gradient of a softmax, row by row: w * (dw - sum(w * dw)).
            dlogits = weights * (dweights - (weights * dweights).sum(axis=1, keepdims=True))
            if dbias is not None:
                dbias[head, block, :] += dlogits
            dlogits = dlogits.astype(q.dtype)
            dv[:, :] += product(weights.astype(v.dtype), own_dmixed, 0, 0)
            dq += product(dlogits, own_k, 1, 0)
            dk[:, :] += product(dlogits, own_q, 0, 0)
        # Queries were scaled on the way in, so that their gradient is scaled on the way out.
        dq *= width**-0.5
        out[block, _lanes(0)] = dq.astype(out.dtype)
        sums[:, _lanes(0)] += dq.sum(axis=0, keepdims=True)

    _over_blocks(projected.shape[0], work)
    for part, gradient in ((1, dk), (2, dv)):
        out[:, _lanes(part)] = gradient[:, :].astype(out.dtype)
        sums[:, _lanes(part)] = gradient[:, :].sum(axis=0, keepdims=True)


def _lanes(part: int) -> Any:
    """Returns the columns of a group's queries (0), keys (1) or values (2)."""
    return pl.ds(part * LANES, LANES)


def _raised(
    query: Array, key: Array, options: Mapping[str, Any], head: int, block: Any
) -> tuple[Array, Array]:
    """Returns unnormalised attention weights of a block of queries and one head, and their sums."""
    logits = product(query, key, 1, 1)
    if "bias" in options:
        logits += options["bias"][head, block, :]
    if "mask" in options:
        logits = jnp.where(options["mask"][block, :].astype(jnp.int32) > 0, logits, HIDDEN)
    if "valid" in options:
        logits = jnp.where(options["valid"][:, :] > 0, logits, HIDDEN)
    raised = jnp.exp(logits - logits.max(axis=1, keepdims=True))
    return raised, raised.sum(axis=1, keepdims=True)
