"""An image with a class for each pixel: the examples of segmentation (mmsegmentation, BEiT)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from vlbeit_jax.config.finetune import MasksConfig
from vlbeit_jax.data import image as images
from vlbeit_jax.data.bad_records import NOT_A_MASK, decoding
from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.examples.base import ROW_SPECS, Example, Spec, record_id, row_fields
from vlbeit_jax.data.examples.images import pixels_of
from vlbeit_jax.data.masks import stored_mask
from vlbeit_jax.metrics.segmentation import IGNORED
from vlbeit_jax.ops.windows import Size, scaled
from vlbeit_jax.shapes import Float, UInt8

GREY = 128  # Around a picture that is smaller than the crop; nearly 0 after normalisation.
CROP_TRIES = 10
# Photometric distortion: largest change of brightness, range of contrast and saturation, and
# largest change of hue in OpenCV's half degrees.
BRIGHTNESS, CONTRAST, HUE = 32.0, (0.5, 1.5), 18
HUES = 180


@dataclasses.dataclass(frozen=True)
class SegmentedImage:
    """A random crop of fixed size with its mask, for training.

    Attributes:
      settings: how it is augmented.
      size: side of the crop, pixels.
    """

    settings: MasksConfig
    size: int

    def __call__(self, record: Mapping[str, Any], draws: Draws) -> Example:
        """Returns ``image`` and ``mask``.

        The order of the draws (scale, crop, flip, colours) is part of what a seed reproduces. The
        mask is resized without interpolation: a class between two others would be a third one.
        """
        c = self.settings
        image, mask = pixels_of(record), mask_of(record)
        scale = draws.uniform(c.smallest_scale, c.largest_scale)
        size = scaled(Size(*mask.shape), self.size, scale)
        image = images.resize(image, *size)
        mask = cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
        rows, columns = self._crop(draws, mask)
        image, mask = image[rows, columns], mask[rows, columns]
        if draws.uniform() < c.flip:
            image, mask = cv2.flip(image, 1), cv2.flip(mask, 1)
        if c.photometric:
            image = distorted(draws, image)
        below, right = (self.size - length for length in mask.shape)
        image = np.pad(image, [(0, below), (0, right), (0, 0)], constant_values=GREY)
        mask = np.pad(mask, [(0, below), (0, right)], constant_values=IGNORED)
        views: Example = {"image": image, "mask": mask}
        return row_fields(record) | views

    def _crop(self, draws: Draws, mask: UInt8[np.ndarray, "height width"]) -> tuple[slice, slice]:
        """Returns a crop of which one class does not fill too much; the last try counts anyway."""
        height, width = (min(length, self.size) for length in mask.shape)
        rows = columns = slice(0)
        for _ in range(CROP_TRIES):
            top = draws.below(mask.shape[0] - height + 1)
            left = draws.below(mask.shape[1] - width + 1)
            rows, columns = slice(top, top + height), slice(left, left + width)
            counts = np.bincount(mask[rows, columns].ravel(), minlength=IGNORED + 1)[:IGNORED]
            if 0 < counts.max() < self.settings.one_class * counts.sum():
                break
        return rows, columns


def segmented_specs(size: int) -> dict[str, Spec]:
    """Returns the shapes and types of a ``SegmentedImage``."""
    image, mask = Spec((size, size, 3), np.uint8), Spec((size, size), np.uint8)
    return ROW_SPECS | {"image": image, "mask": mask}


def mask_of(record: Mapping[str, Any]) -> UInt8[np.ndarray, "height width"]:
    """Returns the mask of a record.

    Raises:
      BadRecord: it cannot be decoded.
    """
    with decoding(NOT_A_MASK, record_id(record)):
        return stored_mask(record["mask"])


def distorted(
    draws: Draws, image: UInt8[np.ndarray, "height width 3"]
) -> UInt8[np.ndarray, "height width 3"]:
    """Changes brightness, contrast, saturation and hue, each with probability one half.

    Contrast comes before saturation and hue or after them, with equal probability. Values are
    clipped after each change, as in mmsegmentation.
    """
    if draws.uniform() < 0.5:
        image = _clipped(image + draws.uniform(-BRIGHTNESS, BRIGHTNESS))
    early = draws.uniform() < 0.5
    if early:
        image = _with_contrast(draws, image)
    if draws.uniform() < 0.5:
        factor = draws.uniform(*CONTRAST)
        image = _in_hsv(image, 1, lambda saturation: np.clip(saturation * factor, 0, 255))
    if draws.uniform() < 0.5:
        shift = draws.below(2 * HUE + 1) - HUE
        image = _in_hsv(image, 0, lambda hue: (hue + shift) % HUES)
    return image if early else _with_contrast(draws, image)


def _with_contrast(draws: Draws, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    if draws.uniform() >= 0.5:
        return image
    return _clipped(image * np.float32(draws.uniform(*CONTRAST)))


def _in_hsv(
    image: UInt8[np.ndarray, "h w 3"], channel: int, change: Any
) -> UInt8[np.ndarray, "h w 3"]:
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    hsv[..., channel] = change(hsv[..., channel].astype(np.float32)).astype(np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def _clipped(image: Float[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    return np.clip(image, 0, 255).astype(np.uint8)
