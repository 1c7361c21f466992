"""Attention by cuDNN's flash kernels on an NVIDIA GPU: the L x L weights never reach main memory.

cuDNN takes padding as the number of valid keys of each row, so valid keys must come first. With a
backward pass JAX hands it an even number of tokens only (the limit is that of a bias, and JAX 0.10 to
0.12 apply it without one), so an odd number gets one more token, which no query sees.

There is no bias here. On an H200 (cuDNN 9.19, jax 0.11.2) attention with a bias and its gradients was
further from float64 than twice the error of plain attention, at 197 and at 256 tokens.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vlbeit_jax.ops.device import device_kind, on_nvidia, on_own_part
from vlbeit_jax.shapes import Array, Bool, Float

WIDEST_HEAD = 128  # cuDNN's limit before Hopper, where it is 256.
OLDEST = (8, 0)  # Compute capability: Ampere.
IMPLEMENTATION = "cudnn"  # Tests away from GPUs put "xla" here and check everything around the call.


def cudnn_attention(
    query: Float[Array, "B L H K"],
    key: Float[Array, "B L H K"],
    value: Float[Array, "B L H K"],
    valid: Bool[Array, "B L"] | None,
) -> Float[Array, "B L H K"]:
    """Scaled dot-product attention; logits and softmax in float32, products in the inputs' type.

    Args:
      query: bfloat16 or float16, as the next two.
      key: one per token.
      value: one per token.
      valid: True where a key may be attended to, which must be the first keys of a row; None: all.

    Returns:
      What each query attended to. Rows and heads may lie on several devices.
    """
    inputs, rows = [query, key, value], ("batch", None, "heads")
    layouts: list[tuple[str | None, ...]] = [rows] * 3
    if valid is not None:
        inputs.append(valid.sum(axis=1, dtype=jnp.int32))
        layouts.append(("batch",))
    return on_own_part(_on_an_even_number, inputs, layouts)


def what_is_missing(dtype: jnp.dtype, head_width: int) -> str:
    """Why cuDNN cannot compute attention here; empty if it can.

    Args:
      dtype: of queries, keys and values.
      head_width: K.
    """
    if not on_nvidia():
        return f"an NVIDIA GPU (the device here is {device_kind()!r})"
    if dtype not in (jnp.bfloat16, jnp.float16):
        return f"matmul=bfloat16 (the products here are {jnp.dtype(dtype).name})"
    if head_width % 8 or head_width > WIDEST_HEAD:
        return f"heads of 8, 16, ... {WIDEST_HEAD} (they are {head_width} wide)"
    if jax.sharding.get_abstract_mesh().abstract_device is not None:
        return ""  # Compiled ahead of time, for a device that is not here to be asked.
    capability = tuple(int(part) for part in jax.local_devices()[0].compute_capability.split("."))
    if capability < OLDEST:
        return f"compute capability {OLDEST[0]}.{OLDEST[1]} or above (this GPU has {capability})"
    return _refusal()


@functools.cache
def _refusal() -> str:
    """What JAX says when it is asked for cuDNN's attention of one tiny row; empty if it agrees."""
    row = jax.ShapeDtypeStruct((1, 8, 1, 8), jnp.bfloat16)
    try:
        jax.jit(_dot_product_attention).lower(row, row, row)
    except (RuntimeError, NotImplementedError, ValueError) as error:
        return f"a cuDNN that JAX can use ({error})"
    return ""


def _on_an_even_number(query: Array, key: Array, value: Array, lengths: Array | None = None) -> Array:
    batch, length = query.shape[:2]
    if length % 2 == 0:
        return _dot_product_attention(query, key, value, lengths)
    if lengths is None:
        lengths = jnp.full(batch, length, np.int32)
    query, key, value = (jnp.pad(x, ((0, 0), (0, 1), (0, 0), (0, 0))) for x in (query, key, value))
    return _dot_product_attention(query, key, value, lengths)[:, :length]


def _dot_product_attention(query: Array, key: Array, value: Array, lengths: Array | None = None) -> Array:
    return jax.nn.dot_product_attention(query, key, value, key_value_seq_lengths=lengths, implementation=IMPLEMENTATION)
