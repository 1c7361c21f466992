"""Answers that need no network: what a figure must beat before it says anything."""

import numpy as np

from tools.transfer import probing
from vlbeit_jax.data.image import resize
from vlbeit_jax.shapes import Float, UInt8

PIXELS = 16  # Side of the pictures that the floors see.


def small(pixels: UInt8[np.ndarray, "height width 3"]) -> Float[np.ndarray, " K"]:
    """Returns a picture of 16 x 16 pixels as a row, between 0 and 1."""
    return resize(pixels, PIXELS, PIXELS).reshape(-1) / 255


def pixel_floors(
    pixels: Float[np.ndarray, "A K"], data: probing.Labelled
) -> dict[str, Float[np.ndarray, " A"]]:
    """Returns right answers of the commonest class, and of two classifiers of pixels."""
    return {
        "majority": probing.majority(data),
        "pixel_nearest_neighbour": probing.nearest(pixels, data),
        "pixel_ridge": probing.ridge([pixels], data).right,
    }
