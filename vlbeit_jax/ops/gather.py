"""Masked positions as small integer lists: gathered for the heads, compared for the mask token."""

import jax.numpy as jnp

from vlbeit_jax.shapes import Array, Bool, Float, Int


def gather_positions(
    x: Float[Array, "B L D"], positions: Int[Array, "B M"]
) -> Float[Array, "B M D"]:
    """The rows of each example at its own positions."""
    return jnp.take_along_axis(x, positions[..., None], axis=1)


def is_at_positions(positions: Int[Array, "B M"], length: int) -> Bool[Array, "B L"]:
    """True where a position is listed: a comparison and not a scatter, so that it shards freely."""
    return (positions[:, :, None] == jnp.arange(length)[None, None, :]).any(axis=1)
