"""Bidirectional multi-head attention with a key mask and an optional additive bias.

Two ways to the same numbers: by products and a softmax that the compiler arranges (``einsum``), or on a TPU by one kernel that
keeps the attention weights on the chip (``fused``, in ``fused_attention``).

Queries, keys and values lie in one array, so that one product projects to all three: for each few heads, as many as fill the
lanes of a TPU's vector register, their queries, then their keys, then their values. Cut between heads, a chip has all three.
"""

import jax
import jax.numpy as jnp

from vlbeit_jax.ops.einsum import einsum_to_float32
from vlbeit_jax.ops.fused_attention import LANES, chips_sharing_heads, fused_attention, on_tpu
from vlbeit_jax.shapes import Array, Bool, Float

LONGEST_FUSED = 512  # Tokens: the kernel holds the weights of one head, L x L, on the chip.


def group_width(width: int, heads: int) -> int:
    """Width of the heads whose queries stand beside each other, then their keys, then their values."""
    return LANES if _fill_lanes(width, heads) else width // heads


def group_by_lanes(query: Float[Array, "*B D"], key: Float[Array, "*B D"], value: Float[Array, "*B D"], heads: int) -> Float[Array, "*B Q"]:
    """Queries, keys and values, or their biases, as one array, in the order that attention takes."""
    parts = [x.reshape(*x.shape[:-1], -1, group_width(x.shape[-1], heads)) for x in (query, key, value)]
    return jnp.stack(parts, axis=-2).reshape(*query.shape[:-1], -1)


def attention(
    projected: Float[Array, "B L Q"],
    shift: Float[Array, "Q"],
    heads: int,
    valid: Bool[Array, "B L"] | None,
    bias: Float[Array, "H L L"] | None = None,
    how: str = "einsum",
) -> Float[Array, "B L D"]:
    """Scaled dot-product attention; logits and softmax in float32 whatever the input type.

    Args:
      projected: unscaled queries, keys and values, as ``group_by_lanes`` orders them.
      shift: biases of the projection, added to ``projected``. They are here because the kernel has their gradients at hand.
      heads: H, into which D is cut.
      valid: True where a key may be attended to; None when all are. At least one key per row must be valid.
      bias: added to the scaled logits, query by key.
      how: "einsum"; "fused"; "auto": fused on a TPU where ``can_fuse`` holds for the chips that share the heads.

    Raises:
      ValueError: "fused" was asked for and is not possible.
    """
    length, width, chips = projected.shape[1], projected.shape[2] // 3, chips_sharing_heads()
    possible = bias is None and can_fuse(length, width, heads, chips)
    if how == "fused" and not possible:
        raise ValueError(
            f"fused attention of {length} tokens of width {width} in {heads} heads"
            f"{'' if bias is None else ' with a bias'}: it needs absolute positions, at most {LONGEST_FUSED} tokens, and on each "
            f"of {chips} chip(s) that share them heads that fill {LANES} lanes (64 wide, and an even number)"
        )
    if how == "fused" or (how == "auto" and possible and on_tpu()):
        return fused_attention(projected, shift, valid, heads)
    return _einsum_attention(projected + shift.astype(projected.dtype), heads, valid, bias)


def can_fuse(length: int, width: int, heads: int, chips: int) -> bool:
    """Whether the kernel takes these sizes: on each of the chips that share the heads, whole ones fill the lanes of a vector register."""
    return length <= LONGEST_FUSED and _fill_lanes(width, heads) and width % (LANES * chips) == 0


def _fill_lanes(width: int, heads: int) -> bool:
    return width % LANES == 0 and LANES % (width // heads) == 0


def _einsum_attention(
    projected: Float[Array, "B L Q"], heads: int, valid: Bool[Array, "B L"] | None, bias: Float[Array, "H L L"] | None
) -> Float[Array, "B L D"]:
    batch, length, width = *projected.shape[:2], projected.shape[2] // 3
    groups = projected.reshape(batch, length, -1, 3, group_width(width, heads))
    query, key, value = (groups[:, :, :, part].reshape(batch, length, heads, width // heads).transpose(0, 2, 1, 3) for part in range(3))
    logits = einsum_to_float32("bhqk,bhsk->bhqs", query * (width // heads) ** -0.5, key)
    if bias is not None:
        logits = logits + bias.astype(jnp.float32)
    if valid is not None:
        logits = jnp.where(valid[:, None, None, :], logits, -jnp.inf)
    weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    return jnp.einsum("bhqs,bhsk->bhqk", weights, value).transpose(0, 2, 1, 3).reshape(batch, length, width)
