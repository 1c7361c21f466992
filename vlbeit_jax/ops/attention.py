"""Bidirectional multi-head attention with a key mask and an optional additive bias.

Two ways to the same numbers: by products and a softmax that the compiler arranges (``einsum``), or on a TPU by one kernel that
keeps the attention weights on the chip (``fused``, in ``fused_attention``).
"""

import jax
import jax.numpy as jnp

from vlbeit_jax.ops.einsum import einsum_to_float32
from vlbeit_jax.ops.fused_attention import LANES, fused_attention, on_tpu
from vlbeit_jax.shapes import Array, Bool, Float

LONGEST_FUSED = 512  # Tokens: the kernel holds the weights of one head, L x L, on the chip.


def attention(
    query: Float[Array, "B L D"],
    key: Float[Array, "B L D"],
    value: Float[Array, "B L D"],
    heads: int,
    valid: Bool[Array, "B L"] | None,
    bias: Float[Array, "H L L"] | None = None,
    how: str = "einsum",
) -> Float[Array, "B L D"]:
    """Scaled dot-product attention; logits and softmax in float32 whatever the input type.

    Args:
      query: unscaled queries, a head beside the other.
      key: keys.
      value: values.
      heads: H, into which the last axis is cut.
      valid: True where a key may be attended to; None when all are. At least one key per row must be valid.
      bias: added to the scaled logits, query by key.
      how: "einsum"; "fused"; "auto": fused on a TPU where ``can_fuse`` holds.

    Raises:
      ValueError: "fused" was asked for and is not possible.
    """
    possible = bias is None and can_fuse(query.shape[1], query.shape[2], heads)
    if how == "fused" and not possible:
        raise ValueError(
            f"fused attention of {query.shape[1]} tokens of width {query.shape[2]} in {heads} heads"
            f"{'' if bias is None else ' with a bias'}: it needs absolute positions, at most {LONGEST_FUSED} tokens, and heads that fill "
            f"{LANES} lanes (64 wide, and an even number)"
        )
    if how == "fused" or (how == "auto" and possible and on_tpu()):
        return fused_attention(query, key, value, valid, heads)
    return _einsum_attention(query, key, value, heads, valid, bias)


def can_fuse(length: int, width: int, heads: int) -> bool:
    """Whether the kernel takes these sizes: whole heads fill the lanes of a vector register."""
    return length <= LONGEST_FUSED and width % LANES == 0 and LANES % (width // heads) == 0


def _einsum_attention(
    query: Float[Array, "B L D"],
    key: Float[Array, "B L D"],
    value: Float[Array, "B L D"],
    heads: int,
    valid: Bool[Array, "B L"] | None,
    bias: Float[Array, "H L L"] | None,
) -> Float[Array, "B L D"]:
    batch, length, width = query.shape
    query, key, value = (x.reshape(batch, length, heads, width // heads).transpose(0, 2, 1, 3) for x in (query, key, value))
    logits = einsum_to_float32("bhqk,bhsk->bhqs", query * (width // heads) ** -0.5, key)
    if bias is not None:
        logits = logits + bias.astype(jnp.float32)
    if valid is not None:
        logits = jnp.where(valid[:, None, None, :], logits, -jnp.inf)
    weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    return jnp.einsum("bhqs,bhsk->bhqk", weights, value).transpose(0, 2, 1, 3).reshape(batch, length, width)
