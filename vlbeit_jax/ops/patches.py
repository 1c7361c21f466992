"""Images to patches and back, row-major: the only place that knows the order of pixels in a patch."""

import jax.numpy as jnp

from vlbeit_jax.shapes import Array, Float, UInt8


def normalise(image: UInt8[Array, "*B height width 3"]) -> Float[Array, "*B height width 3"]:
    """Pixels to [-1, 1] (mean and standard deviation .5); what both the model and VQ-KD see (spec sections 3.1, 4)."""
    return image.astype(jnp.float32) / 127.5 - 1.0


def downsample(image: Float[Array, "B height width 3"], side: int) -> Float[Array, "B side side 3"]:
    """The image at ``side`` by ``side``, which divides its own sides: means over squares of pixels."""
    batch, size, _, channels = image.shape
    if size == side:
        return image
    return image.reshape(batch, side, size // side, side, size // side, channels).mean(axis=(2, 4))


def to_patches(image: Float[Array, "B height width 3"], side: int) -> Float[Array, "B N P"]:
    """Non-overlapping ``side`` by ``side`` patches, row by row; within one (row, column, channel)."""
    batch, height, width, channels = image.shape
    grid = image.reshape(batch, height // side, side, width // side, side, channels)
    return grid.transpose(0, 1, 3, 2, 4, 5).reshape(batch, -1, side * side * channels)


def from_patches(patches: Float[Array, "B N P"], side: int) -> Float[Array, "B height width 3"]:
    """The square image that ``to_patches`` cut up."""
    batch, count, _ = patches.shape
    rows = round(count**0.5)
    grid = patches.reshape(batch, rows, rows, side, side, 3)
    return grid.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows * side, rows * side, 3)
