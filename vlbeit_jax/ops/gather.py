"""Masked positions as lists of integers: gathered for the heads, compared for the mask token."""

import jax.numpy as jnp

from vlbeit_jax.shapes import Array, Bool, Float, Int


def gather_positions(
    x: Float[Array, "B L D"], positions: Int[Array, "B M"]
) -> Float[Array, "B M D"]:
    """Returns the tokens of each row at its own positions, in [0, L)."""
    return jnp.take_along_axis(x, positions[..., None], axis=1)


def is_at_positions(positions: Int[Array, "B M"], length: int) -> Bool[Array, "B L"]:
    """True where a position is listed."""
    # A comparison and not a scatter, so that the compiler can partition it along any axis.
    return (positions[:, :, None] == jnp.arange(length)[None, None, :]).any(axis=1)
