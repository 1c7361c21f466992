"""Floors: scores of answers that need no network. A network has to beat them to show anything."""

import numpy as np

from tools.transfer import probing
from vlbeit_jax.data.image import resize
from vlbeit_jax.shapes import Float, UInt8

PIXELS = 16  # Side of the pictures that the floors see.


def small(pixels: UInt8[np.ndarray, "height width 3"]) -> Float[np.ndarray, " K"]:
    """Returns a picture shrunk to 16 x 16 pixels, as a row of values between 0 and 1."""
    return resize(pixels, PIXELS, PIXELS).reshape(-1) / 255


def pixel_floors(
    pixels: Float[np.ndarray, "A K"], data: probing.Labelled
) -> dict[str, Float[np.ndarray, " A"]]:
    """Returns whether the most frequent class and two classifiers of pixels are right, by name."""
    return {
        "majority": probing.majority(data),
        "pixel_nearest_neighbour": probing.nearest(pixels, data),
        "pixel_ridge": probing.ridge([pixels], data).right,
    }
