"""Teachers of VQ-KD: what the visual tokenizer's decoder has to predict for every patch.

A teacher is an object with a ``width`` and ``targets(images)``; one that can be looked at also has ``images(predictions)``.
"""

from typing import Protocol, runtime_checkable

import jax.numpy as jnp

from vlbeit_jax.ops.patches import from_patches, normalise, to_patches
from vlbeit_jax.ops.quantize import l2_normalise
from vlbeit_jax.shapes import Array, Float, UInt8


@runtime_checkable
class Teacher(Protocol):
    """Gives every patch a direction to predict; only directions count, because VQ-KD's loss is a cosine."""

    width: int

    def targets(self, image: UInt8[Array, "B height width 3"]) -> Float[Array, "B N O"]:
        """Unit vectors, one a patch."""
        ...

    def images(self, predictions: Float[Array, "B N O"]) -> UInt8[Array, "B height width 3"] | None:
        """What predictions look like, or None for a teacher that cannot be inverted."""
        ...


class PixelTeacher:
    """The patch's own pixels in [-1, 1], with one constant more.

    A cosine sees no length, so that grey and white would be one direction. The constant sqrt(P) (homogeneous coordinates)
    makes brightness part of the direction, and the picture can be had back by dividing by it.
    """

    def __init__(self, patch_size: int):
        self.patch_size = patch_size
        self.width = 3 * patch_size**2 + 1

    def targets(self, image: UInt8[Array, "B height width 3"]) -> Float[Array, "B N O"]:
        """Unit vectors along (pixels, sqrt(P))."""
        patches = to_patches(normalise(image), self.patch_size)
        constant = jnp.full((*patches.shape[:-1], 1), (self.width - 1) ** 0.5)
        return l2_normalise(jnp.concatenate([patches, constant], axis=-1))

    def images(self, predictions: Float[Array, "B N O"]) -> UInt8[Array, "B height width 3"]:
        """Pixels of (not necessarily unit) predictions."""
        constant = jnp.maximum(predictions[..., -1:], 1e-3) / (self.width - 1) ** 0.5
        pixels = jnp.clip(predictions[..., :-1] / constant, -1, 1)
        return jnp.round((from_patches(pixels, self.patch_size) + 1) * 127.5).astype(jnp.uint8)


def make_teacher(name: str, patch_size: int) -> Teacher:
    """The teacher of that name; the list of names is in ``VisualTokenizerConfig.teacher``."""
    return {"pixels": PixelTeacher}[name](patch_size)
