"""Bidirectional multi-head attention with a key mask and an optional additive bias."""

import jax
import jax.numpy as jnp

from vlbeit_jax.shapes import Array, Bool, Float


def attention(
    query: Float[Array, "B H L K"],
    key: Float[Array, "B H L K"],
    value: Float[Array, "B H L K"],
    valid: Bool[Array, "B L"] | None,
    bias: Float[Array, "H L L"] | None = None,
) -> Float[Array, "B H L K"]:
    """Scaled dot-product attention; logits and softmax in float32 whatever the input type.

    Args:
      query: unscaled queries.
      key: keys.
      value: values.
      valid: True where a key may be attended to; None when all are. At least one key per row must be valid.
      bias: added to the scaled logits, query by key.
    """
    scale = query.shape[-1] ** -0.5
    logits = jnp.einsum("bhqk,bhsk->bhqs", query * scale, key, preferred_element_type=jnp.float32)
    if bias is not None:
        logits = logits + bias.astype(jnp.float32)
    if valid is not None:
        logits = jnp.where(valid[:, None, None, :], logits, -jnp.inf)
    weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    return jnp.einsum("bhqs,bhsk->bhqk", weights, value)
