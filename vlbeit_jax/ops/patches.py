"""Images to patches and back. The only file that knows the order of pixels in a patch."""

import jax.numpy as jnp

from vlbeit_jax.shapes import Array, Float, UInt8


def normalise(
    image: UInt8[Array, "*B height width 3"] | Float[Array, "*B height width 3"],
) -> Float[Array, "*B height width 3"]:
    """Maps pixels to [-1, 1], as both BEiT v2's tokenizer and the model see them.

    Floating-point pixels are returned as they are: they have been normalised, to be mixed.
    """
    if jnp.issubdtype(image.dtype, jnp.floating):
        return image
    return image.astype(jnp.float32) / 127.5 - 1.0


def downsample(image: Float[Array, "B height width 3"], side: int) -> Float[Array, "B side side 3"]:
    """Averages over squares of pixels, to ``side`` by ``side``, a divisor of the image's sides."""
    batch, size, _, channels = image.shape
    if size == side:
        return image
    return image.reshape(batch, side, size // side, side, size // side, channels).mean(axis=(2, 4))


def to_patches(image: Float[Array, "B height width 3"], side: int) -> Float[Array, "B N P"]:
    """Cuts images into patches of ``side`` by ``side`` pixels, row by row.

    The entries of a patch are in the order (row, column, channel).
    """
    batch, height, width, channels = image.shape
    grid = image.reshape(batch, height // side, side, width // side, side, channels)
    return grid.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, side * side * channels)


def from_patches(patches: Float[Array, "B N P"], side: int) -> Float[Array, "B height width 3"]:
    """Puts the patches of ``to_patches`` together again, to square images."""
    batch, count, _ = patches.shape
    rows = round(count**0.5)
    grid = patches.reshape(batch, rows, rows, side, side, 3)
    return grid.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * side, rows * side, 3)
