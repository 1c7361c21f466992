"""Attention for short sequences as one TPU kernel: logits and weights never leave the chip.

XLA writes the [B, H, L, L] weights of every block to main memory and reads them back, both forward
and backward. For the 128 to 256 tokens here, they fit into the chip's own memory.
Each program of the grid takes one row of the batch with all its heads. It computes the weights in
float32, as ``einsum`` does; the backward pass computes them again instead of reading them.

A register has 128 lanes, and a head of base size is 64 wide. To separate two heads that share a
register, the kernel sets the lanes of the other head to zero instead of moving lanes. That costs
nothing in a product over lanes, because the matrix unit sums over 128 of them in any case.
``vlbeit_jax.plan.kernels`` tells what a call costs.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from vlbeit_jax.ops.device import LANES, on_own_part, on_tpu
from vlbeit_jax.ops.hidden import HIDDEN
from vlbeit_jax.shapes import Array, Bool, Float


def fused_attention(
    projected: Float[Array, "B L Q"],
    shift: Float[Array, " Q"],
    valid: Bool[Array, "B L"] | None,
    heads: int,
) -> Float[Array, "B L D"]:
    """``attention`` without an additive bias. Rows and heads may be on several chips.

    Without a TPU, the kernel is emulated, for tests.
    """
    per_head = projected.shape[2] // heads

    def local(projected: Array, shift: Array, *valid: Array) -> Array:
        mask = valid[0][:, None].astype(jnp.int32) if valid else None
        return _attention(projected, shift, mask, projected.shape[2] // per_head)

    # A chip has whole groups of heads, and counts its heads by their width.
    inputs = (projected, shift) if valid is None else (projected, shift, valid)
    layouts = (("batch", None, "heads"), ("heads",), ("batch",))
    return on_own_part(local, inputs, layouts[: len(inputs)])


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _attention(projected: Array, shift: Array, valid: Array | None, heads: int) -> Array:
    return _forward(projected, shift, valid, heads)[0]


def _forward(
    projected: Array, shift: Array, valid: Array | None, heads: int
) -> tuple[Array, tuple]:
    shifted = projected + shift.astype(projected.dtype)
    (out,) = call_kernel("forward", heads, valid, (shifted,))
    return out, (shifted, shift, valid)


def _backward(heads: int, saved: tuple, change: Array) -> tuple:
    shifted, shift, valid = saved
    to_projected, to_shift = call_kernel("backward", heads, valid, (shifted, change))
    # The kernel has summed over the tokens of each row; what is left is the sum over rows.
    return to_projected, to_shift.sum(axis=(0, 1)).astype(shift.dtype), None


_attention.defvjp(_forward, _backward)


def call_kernel(direction: str, heads: int, valid: Array | None, inputs: tuple[Array, ...]) -> Any:
    """Calls one of the kernels on one chip, with a program for each row of the batch.

    Args:
      direction: "forward" or "backward".
      heads: on this chip.
      valid: Int[B, 1, L], above 0 where a key may be attended to; None if all may.
      inputs: ``projected`` with its biases; for "backward" also the gradient of the result.

    Returns:
      Forward: the result. Backward: the gradient of ``projected``, and its sum over tokens.
    """
    projected, width = inputs[0], inputs[0].shape[2] // 3
    batch, length, columns = projected.shape
    assert columns % (3 * LANES) == 0, projected.shape
    given = inputs if valid is None else (*inputs, valid)
    if direction == "forward":
        kernel, out = (
            _forward_kernel,
            [jax.ShapeDtypeStruct((batch, length, width), projected.dtype)],
        )
    else:
        sums = jax.ShapeDtypeStruct((batch, 1, columns), jnp.float32)
        kernel, out = _backward_kernel, [projected, sums]

    def row(array: Any) -> pl.BlockSpec:
        """One row of the batch with all that belongs to it; None drops the axis of rows."""
        return pl.BlockSpec((None, *array.shape[1:]), lambda index: (index, 0, 0))

    return pl.pallas_call(
        functools.partial(kernel, width // heads),
        # plan.kernels finds a kernel by this name.
        name="_".join([direction, "kernel", str(heads), *["valid"] * (valid is not None)]),
        # Rows are independent, so that the two cores of a v4 or v5p share them.
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",)),
        grid=(batch,),
        in_specs=[row(array) for array in given],
        out_specs=[row(array) for array in out],
        out_shape=[jax.ShapeDtypeStruct(array.shape, array.dtype) for array in out],
        interpret=not on_tpu(),
    )(*given)


class _Group(NamedTuple):
    """The heads that fill a register.

    Attributes:
      result: the columns of their result.
      query: the columns of their queries in ``projected``; likewise ``key`` and ``value``.
      key: of their keys.
      value: of their values.
      heads: for each head, Bool[1, LANES], True in the lanes of the head.
    """

    result: Any
    query: Any
    key: Any
    value: Any
    heads: list[Array]


def _forward_kernel(width: int, projected: Any, *rest: Any) -> None:
    """Computes a row of the batch; ``width`` is that of a head, ``rest`` has mask and result."""
    *valid, out = rest
    for group in _groups(projected.shape[1], width):
        q, k, v = projected[:, group.query], projected[:, group.key], projected[:, group.value]
        mixed = jnp.zeros(q.shape, jnp.float32)
        for lanes in group.heads:
            # With the other heads' lanes of the queries at zero, their part of the sum over lanes
            # is zero, so the keys need no mask of their own.
            own_q = jnp.where(lanes, q * width**-0.5, 0)
            weights = _weights(own_q, k, valid[0][:] if valid else None)
            # Each head adds into its own lanes; it is zero in the others'.
            mixed += product(weights.astype(v.dtype), jnp.where(lanes, v, 0), 1, 0)
        out[:, group.result] = mixed.astype(out.dtype)


def _backward_kernel(width: int, projected: Any, change: Any, *rest: Any) -> None:
    """Computes the gradient of a row of the batch; ``change`` is that of the row's result.

    ``rest`` has mask, the gradient of ``projected``, and its sum over tokens.
    """
    *valid, out, sums = rest
    for group in _groups(projected.shape[1], width):
        q, k, v = projected[:, group.query], projected[:, group.key], projected[:, group.value]
        dmixed = change[:, group.result]
        dq = dk = dv = jnp.zeros(q.shape, jnp.float32)
        for lanes in group.heads:
            own_q = jnp.where(lanes, q * width**-0.5, 0)
            own_k, own_dmixed = jnp.where(lanes, k, 0), jnp.where(lanes, dmixed, 0)
            # Computed again: to store them would take L x L numbers for each head.
            weights = _weights(own_q, k, valid[0][:] if valid else None)
            dweights = product(own_dmixed, v, 1, 1)
            # The gradient of a softmax, row by row: w * (dw - sum(w * dw)).
            dlogits = (
                weights * (dweights - (weights * dweights).sum(axis=1, keepdims=True))
            ).astype(q.dtype)
            # One factor of each product is zero in the other heads' lanes, and so is the product.
            dv += product(weights.astype(v.dtype), own_dmixed, 0, 0)
            dq += product(dlogits, own_k, 1, 0)
            dk += product(dlogits, own_q, 0, 0)
        # Queries were scaled on the way in, so that their gradient is scaled on the way out. That
        # of the keys has the factor already: it was computed from the scaled queries.
        columns = (group.query, group.key, group.value)
        for place, gradient in zip(columns, (dq * width**-0.5, dk, dv), strict=True):
            out[:, place] = gradient.astype(out.dtype)
            # For the biases, in float32: a row sums up to 512 tokens.
            sums[:, place] = gradient.sum(axis=0, keepdims=True)


def _groups(columns: int, width: int) -> list[_Group]:
    """Returns the groups of heads; ``columns`` are those of ``projected``, ``width`` of a head."""

    def lanes(register: int) -> Any:
        return pl.ds(register * LANES, LANES)

    return [
        _Group(
            result=lanes(group),
            query=lanes(3 * group),
            key=lanes(3 * group + 1),
            value=lanes(3 * group + 2),
            heads=own_lanes(width),
        )
        for group in range(columns // (3 * LANES))
    ]


def own_lanes(width: int) -> list[Array]:
    """For each head that shares a register, Bool[1, LANES]: True in the lanes of the head."""
    head = jax.lax.broadcasted_iota(jnp.int32, (1, LANES), 1) // width
    return [head == index for index in range(LANES // width)]


def _weights(query: Array, key: Array, valid: Array | None) -> Array:
    """Returns attention weights [L, L] of one head, in float32."""
    logits = product(query, key, 1, 1)
    if valid is not None:
        logits = jnp.where(valid > 0, logits, HIDDEN)
    # The largest logit of each query cancels, and keeps exp() finite.
    raised = jnp.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def product(a: Array, b: Array, of_a: int, of_b: int) -> Array:
    """Sums over axis ``of_a`` of ``a`` and ``of_b`` of ``b``, in float32."""
    return jax.lax.dot_general(
        a, b, (((of_a,), (of_b,)), ((), ())), preferred_element_type=jnp.float32
    )
