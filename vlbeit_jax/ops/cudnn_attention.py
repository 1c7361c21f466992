"""Attention by cuDNN's flash kernels on an NVIDIA GPU: the L x L weights never reach main memory.

cuDNN takes padding as the number of valid keys of each row, so valid keys must come first. If there
is a backward pass, JAX accepts only an even number of tokens. (The limit is meant for a bias, but
JAX 0.10 to 0.12 apply it without one.) So we add one token to an odd number, to which no query
attends.

A bias is not supported. On an H200 (cuDNN 9.19, jax 0.11.2), the float64 test of attention with a
bias failed at 197 and 256 tokens and passed at 65 and 128. The cause is not known.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vlbeit_jax.ops.device import device_kind, on_nvidia, on_own_part
from vlbeit_jax.shapes import Array, Bool, Float

WIDEST_HEAD = 128  # cuDNN's limit before Hopper; on Hopper it is 256.
OLDEST = (8, 0)  # Compute capability: Ampere.
IMPLEMENTATION = "cudnn"  # Tests without a GPU put "xla" here and check everything around the call.


def cudnn_attention(
    query: Float[Array, "B L H K"],
    key: Float[Array, "B L H K"],
    value: Float[Array, "B L H K"],
    valid: Bool[Array, "B L"] | None,
) -> Float[Array, "B L H K"]:
    """Scaled dot-product attention; logits and softmax in float32, products in the inputs' type.

    Args:
      query: one per token, bfloat16 or float16.
      key: one per token, of the same type.
      value: one per token, of the same type.
      valid: True where a key may be attended to; these must be the first keys of a row. None if
        all may.

    Returns:
      For each query, the weighted mean of the values. Rows and heads may be on several devices.
    """
    inputs, rows = [query, key, value], ("batch", None, "heads")
    layouts: list[tuple[str | None, ...]] = [rows] * 3
    if valid is not None:
        inputs.append(valid.sum(axis=1, dtype=jnp.int32))
        layouts.append(("batch",))
    return on_own_part(_on_an_even_number, inputs, layouts)


def what_is_missing(dtype: jnp.dtype, head_width: int) -> str:
    """What cuDNN needs and does not have here to compute attention; empty if nothing.

    Args:
      dtype: of queries, keys and values.
      head_width: K.
    """
    if not on_nvidia():
        return f"an NVIDIA GPU (the device here is {device_kind()!r})"
    if dtype not in (jnp.bfloat16, jnp.float16):
        return f"matmul=bfloat16 (the products here are {jnp.dtype(dtype).name})"
    if head_width % 8 or head_width > WIDEST_HEAD:
        return f"heads that are 8, 16, ... or {WIDEST_HEAD} wide (they are {head_width} wide)"
    if jax.sharding.get_abstract_mesh().abstract_device is not None:
        return ""  # The program is compiled ahead of time, for a device that is not here.
    capability = tuple(int(part) for part in jax.local_devices()[0].compute_capability.split("."))
    if capability < OLDEST:
        return f"compute capability {OLDEST[0]}.{OLDEST[1]} or above (this GPU has {capability})"
    return _refusal()


@functools.cache
def _refusal() -> str:
    """Returns JAX's error for cuDNN's attention on one tiny row; empty if there is none."""
    row = jax.ShapeDtypeStruct((1, 8, 1, 8), jnp.bfloat16)
    try:
        jax.jit(_dot_product_attention).lower(row, row, row)
    except (RuntimeError, NotImplementedError, ValueError) as error:
        return f"a cuDNN that JAX can use ({error})"
    return ""


def _on_an_even_number(
    query: Array, key: Array, value: Array, lengths: Array | None = None
) -> Array:
    batch, length = query.shape[:2]
    if length % 2 == 0:
        return _dot_product_attention(query, key, value, lengths)
    if lengths is None:
        lengths = jnp.full(batch, length, np.int32)
    query, key, value = (jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (query, key, value))
    return _dot_product_attention(query, key, value, lengths)[:, :length]


def _dot_product_attention(
    query: Array, key: Array, value: Array, lengths: Array | None = None
) -> Array:
    return jax.nn.dot_product_attention(
        query, key, value, key_value_seq_lengths=lengths, implementation=IMPLEMENTATION
    )
