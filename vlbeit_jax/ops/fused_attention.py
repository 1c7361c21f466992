"""Attention for short sequences as one TPU kernel: a row's logits and weights never leave the chip.

XLA writes the [B, H, L, L] weights of every block to main memory and reads them back, forward and backward. For the 128 to
256 tokens here they fit beside the matrix unit. Each program of the grid takes one row of the batch with all its heads, computes
weights in float32 as the other way does, and backward computes them again instead of reading them.

Registers are 128 lanes wide and heads 64. Instead of moving every second head's lanes, the lanes of the other head are set to
zero: the matrix unit multiplies 128 deep in any case. ``vlbeit_jax.cost.kernels`` says what a call costs.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import AxisType, PartitionSpec

from vlbeit_jax.shapes import Array, Bool, Float

LANES = 128
HIDDEN = -1e30  # A logit that leaves no weight, and no NaN where a whole row of logits is hidden.


def fused_attention(
    query: Float[Array, "B L D"], key: Float[Array, "B L D"], value: Float[Array, "B L D"], valid: Bool[Array, "B L"] | None, heads: int
) -> Float[Array, "B L D"]:
    """As ``attention`` without a bias; rows and heads may lie on several chips. Away from TPUs it is emulated, for tests."""
    axes = _axes_to_cut()
    rows, columns = PartitionSpec(axes.get("batch")), PartitionSpec(axes.get("batch"), None, axes.get("heads"))
    masked = valid is not None

    def local(query: Array, key: Array, value: Array, *valid: Array) -> Array:
        return _attention(query, key, value, valid[0][:, None].astype(jnp.int32) if masked else None, query.shape[2] // width)

    width, inputs = query.shape[2] // heads, (query, key, value, *([valid] if masked else []))
    if not axes:
        return local(*inputs)
    names = {name for found in axes.values() for name in found}
    specs = (columns,) * 3 + (rows,) * masked
    return jax.shard_map(local, in_specs=specs, out_specs=columns, axis_names=names, check_vma=False)(*inputs)


def on_tpu() -> bool:
    """Whether the mesh that is traced for, or else this process, has TPUs."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device.device_kind.startswith("TPU") if device is not None else jax.default_backend() == "tpu"


def _axes_to_cut() -> dict[str, tuple[str, ...]]:
    """Axes of the mesh that the compiler still cuts arrays along; a kernel is nothing that it could cut."""
    mesh = jax.sharding.get_abstract_mesh()
    free = [name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind != AxisType.Manual]
    found = {"batch": tuple(name for name in free if name != "tensor"), "heads": tuple(name for name in free if name == "tensor")}
    return {where: names for where, names in found.items() if names}


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attention(query: Array, key: Array, value: Array, valid: Array | None, heads: int) -> Array:
    return _forward(query, key, value, valid, heads)[0]


def _forward(query: Array, key: Array, value: Array, valid: Array | None, heads: int) -> tuple[Array, tuple]:
    (out,) = part("forward", heads, valid, (query, key, value))
    return out, (query, key, value, valid)


def _backward(heads: int, saved: tuple, change: Array) -> tuple:
    query, key, value, valid = saved
    return *part("backward", heads, valid, (query, key, value, change)), None


_attention.defvjp(_forward, _backward)


def part(name: str, heads: int, valid: Array | None, inputs: tuple[Array, ...]) -> Any:
    """Kernel "forward" or "backward" on one chip, a program a row of the batch."""
    kernel, outputs = {"forward": (_forward_kernel, 1), "backward": (_backward_kernel, 3)}[name]
    batch, length, width = inputs[0].shape
    row = pl.BlockSpec((None, length, width), lambda index: (index, 0, 0))
    mask = [] if valid is None else [pl.BlockSpec((None, 1, length), lambda index: (index, 0, 0))]
    given = inputs if valid is None else (*inputs, valid)
    return pl.pallas_call(
        functools.partial(kernel, width // heads, valid is not None),
        name=f"{name}_kernel_{heads}",
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",)),  # Chips of two cores share the rows.
        grid=(batch,),
        in_specs=[row] * len(inputs) + mask,
        out_specs=[row] * outputs,
        out_shape=[jax.ShapeDtypeStruct(inputs[0].shape, inputs[0].dtype)] * outputs,
        interpret=not on_tpu(),
    )(*given)


def _forward_kernel(width: int, masked: bool, query: Any, key: Any, value: Any, *rest: Any) -> None:
    *valid, out = rest
    for lanes, heads in _groups(query.shape[1], width):
        q, k, v = query[:, lanes], key[:, lanes], value[:, lanes]
        mixed = jnp.zeros(q.shape, jnp.float32)
        for mine in heads:
            weights = _weights(jnp.where(mine, q * width**-0.5, 0), k, valid[0][:] if masked else None)
            mixed += _product(weights.astype(v.dtype), jnp.where(mine, v, 0), 1, 0)
        out[:, lanes] = mixed.astype(out.dtype)


def _backward_kernel(width: int, masked: bool, query: Any, key: Any, value: Any, change: Any, *rest: Any) -> None:
    *valid, to_query, to_key, to_value = rest
    for lanes, heads in _groups(query.shape[1], width):
        q, k, v, d = query[:, lanes], key[:, lanes], value[:, lanes], change[:, lanes]
        dq = dk = dv = jnp.zeros(q.shape, jnp.float32)
        for mine in heads:
            own_q, own_k, own_d = (jnp.where(mine, x, 0) for x in (q * width**-0.5, k, d))
            weights = _weights(own_q, k, valid[0][:] if masked else None)
            dweights = _product(own_d, v, 1, 1)
            dlogits = (weights * (dweights - (weights * dweights).sum(axis=1, keepdims=True))).astype(q.dtype)
            dv += _product(weights.astype(v.dtype), own_d, 0, 0)
            dq += _product(dlogits, own_k, 1, 0)
            dk += _product(dlogits, own_q, 0, 0)
        for out, found in ((to_query, dq * width**-0.5), (to_key, dk), (to_value, dv)):
            out[:, lanes] = found.astype(out.dtype)


def _groups(columns: int, width: int) -> list[tuple[Any, list[Array]]]:
    """Lanes that are read together, and for each head among them which are its own."""
    head = jax.lax.broadcasted_iota(jnp.int32, (1, LANES), 1) // width
    mine = [head == index for index in range(LANES // width)]
    return [(pl.ds(start, LANES), mine) for start in range(0, columns, LANES)]


def _weights(query: Array, key: Array, valid: Array | None) -> Array:
    """[L, L] in float32."""
    logits = _product(query, key, 1, 1)
    if valid is not None:
        logits = jnp.where(valid > 0, logits, HIDDEN)
    raised = jnp.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def _product(a: Array, b: Array, of_a: int, of_b: int) -> Array:
    """Sums over axis ``of_a`` of one and ``of_b`` of the other, in float32."""
    return jax.lax.dot_general(a, b, (((of_a,), (of_b,)), ((), ())), preferred_element_type=jnp.float32)
