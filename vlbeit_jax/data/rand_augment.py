"""RandAugment (arXiv 1909.13719) in the two variants that fine-tuning recipes use.

LIGHT is that of BEiT-3, VLMo and ALBEF for images with text: few operations, and no change of
colour that would make a text wrong. STRONG is timm's ``rand-m9-mstd0.5-inc1``, with which BEiT and
BEiT-3 train ImageNet. Both draw two operations, with replacement, and apply each with probability
one half.

LIGHT moves pixels with OpenCV and STRONG with Pillow, as their sources do.
"""

import dataclasses
import math
from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from vlbeit_jax.data.draws import Draws
from vlbeit_jax.shapes import UInt8

Pixels = UInt8[np.ndarray, "height width 3"]
OPERATIONS, PROBABILITY, STEPS = 2, 0.5, 10.0
GREY = (128, 128, 128)
# Strongest changes, at magnitude 10.
ROTATION, SHEAR, LIGHT_SHIFT, SHIFT = 30.0, 0.3, 10.0, 0.45  # Degrees, slope, pixels, share.
LEVELS = np.arange(256)


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """Two random operations on an image.

    Attributes:
      operations: each a function of the image, its strength in [0, 1], and whether to turn the
        direction of the change around.
      magnitude: of 10.
      deviation: of the magnitude, which is normally distributed and clipped to [0, 10].
    """

    operations: tuple[Callable[[Pixels, float, bool], Pixels], ...]
    magnitude: float
    deviation: float = 0.0

    def __call__(self, draws: Draws, image: Pixels) -> Pixels:
        """Returns the image after up to two operations."""
        for _ in range(OPERATIONS):
            operation = self.operations[draws.below(len(self.operations))]
            if draws.uniform() < PROBABILITY:
                magnitude = self.magnitude
                if self.deviation:
                    magnitude += self.deviation * _normal(draws)
                strength = min(max(magnitude / STEPS, 0.0), 1.0)
                image = operation(image, strength, draws.uniform() < 0.5)
        return np.ascontiguousarray(image)


def _normal(draws: Draws) -> float:
    """Returns a standard normal number (Box and Muller)."""
    radius = math.sqrt(-2 * math.log(1 - draws.uniform()))
    return radius * math.cos(2 * math.pi * draws.uniform())


def _signed(value: float, negative: bool) -> float:
    return -value if negative else value


# The light variant.


def _keep(image: Pixels, strength: float, negative: bool) -> Pixels:
    return image


def _by_table(
    image: UInt8[np.ndarray, "height width *_"], table: np.ndarray
) -> UInt8[np.ndarray, "height width *_"]:
    return cv2.LUT(image, np.clip(table, 0, 255).astype(np.uint8))


def stretch(image: Pixels, strength: float = 0, negative: bool = False) -> Pixels:
    """Stretches each channel from its darkest and brightest value to 0 and 255."""
    channels = []
    for channel in cv2.split(image):
        low, high = int(channel.min()), int(channel.max())
        if high > low:
            channel = _by_table(channel, (LEVELS - low) * (255 / (high - low)))
        channels.append(channel)
    return cv2.merge(channels)


def equalise(image: Pixels, strength: float = 0, negative: bool = False) -> Pixels:
    """Makes the histogram of each channel as flat as possible, as Pillow does."""
    channels = []
    for channel in cv2.split(image):
        counts = np.bincount(channel.ravel(), minlength=256)
        used = counts[counts > 0]
        step = used[:-1].sum() // 255
        if step:
            below = np.concatenate([[0], np.cumsum(counts)[:-1]])
            channel = _by_table(channel, (below + step // 2) // step)
        channels.append(channel)
    return cv2.merge(channels)


def _enhancement(strength: float) -> float:
    return strength * 1.8 + 0.1


def _brighten(image: Pixels, strength: float, negative: bool) -> Pixels:
    return _by_table(image, LEVELS * _enhancement(strength))


def _sharpen(image: Pixels, strength: float, negative: bool) -> Pixels:
    """Moves the inner pixels away from a smoothed image."""
    kernel = np.ones((3, 3), np.float32)
    kernel[1, 1] = 5
    smooth = cv2.filter2D(image, -1, kernel / 13).astype(np.float32)
    sharp = smooth + _enhancement(strength) * (image - smooth)
    result = image.copy()
    result[1:-1, 1:-1] = np.clip(sharp[1:-1, 1:-1], 0, 255).astype(np.uint8)
    return result


def _warp(image: Pixels, matrix: np.ndarray) -> Pixels:
    height, width = image.shape[:2]
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=GREY)


def _rotate(image: Pixels, strength: float, negative: bool) -> Pixels:
    height, width = image.shape[:2]
    angle = _signed(ROTATION * strength, negative)
    return _warp(image, cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1))


def _affine(x: float = 0, y: float = 0, shear_x: float = 0, shear_y: float = 0) -> np.ndarray:
    return np.array([[1, shear_x, x], [shear_y, 1, y]], np.float32)


def _light_affine(name: str, largest: float) -> Callable[[Pixels, float, bool], Pixels]:
    def operation(image: Pixels, strength: float, negative: bool) -> Pixels:
        return _warp(image, _affine(**{name: _signed(largest * strength, negative)}))

    return operation


LIGHT = RandAugment(
    operations=(
        _keep,
        stretch,
        equalise,
        _brighten,
        _sharpen,
        _rotate,
        _light_affine("shear_x", SHEAR),
        _light_affine("shear_y", SHEAR),
        _light_affine("x", LIGHT_SHIFT),  # Pixels, whatever the image's size is.
        _light_affine("y", LIGHT_SHIFT),
    ),
    magnitude=7,
)

# The strong variant.


def _by_pillow(
    change: Callable[[Image.Image, float, bool], Image.Image],
) -> Callable[[Pixels, float, bool], Pixels]:
    def operation(image: Pixels, strength: float, negative: bool) -> Pixels:
        return np.asarray(change(Image.fromarray(image), strength, negative))

    return operation


def _enhance(kind: Callable[[Image.Image], ImageEnhance._Enhance]):
    """Returns an operation that is stronger the further its factor is from 1."""

    def change(image: Image.Image, strength: float, negative: bool) -> Image.Image:
        return kind(image).enhance(max(0.1, 1 + _signed(0.9 * strength, negative)))

    return change


def _posterise(image: Image.Image, strength: float, negative: bool) -> Image.Image:
    return ImageOps.posterize(image, 4 - int(4 * strength))


def _solarise(image: Image.Image, strength: float, negative: bool) -> Image.Image:
    return ImageOps.solarize(image, 256 - int(256 * strength))


def _lift_shadows(image: Image.Image, strength: float, negative: bool) -> Image.Image:
    """Adds to what is darker than the middle."""
    added = np.where(LEVELS < 128, np.minimum(LEVELS + int(110 * strength), 255), LEVELS)
    return image.point([*map(int, added)] * 3)


def _turn(image: Image.Image, strength: float, negative: bool) -> Image.Image:
    angle = _signed(ROTATION * strength, negative)
    return image.rotate(angle, Image.Resampling.BICUBIC, fillcolor=GREY)


def _strong_affine(
    coefficients: Callable[[float, tuple[int, int]], tuple[float, ...]], largest: float
):
    def change(image: Image.Image, strength: float, negative: bool) -> Image.Image:
        value = _signed(largest * strength, negative)
        return image.transform(
            image.size,
            Image.Transform.AFFINE,
            coefficients(value, image.size),
            Image.Resampling.BICUBIC,
            fillcolor=GREY,
        )

    return change


# Coefficients map places of the result to places of the image. Borders are filled with the mean
# colour, which is grey where pixels are normalised to [-1, 1].
STRONG = RandAugment(
    operations=tuple(
        _by_pillow(change)
        for change in (
            lambda image, strength, negative: ImageOps.autocontrast(image),
            lambda image, strength, negative: ImageOps.equalize(image),
            lambda image, strength, negative: ImageOps.invert(image),
            _turn,
            _posterise,
            _solarise,
            _lift_shadows,
            _enhance(ImageEnhance.Color),
            _enhance(ImageEnhance.Contrast),
            _enhance(ImageEnhance.Brightness),
            _enhance(ImageEnhance.Sharpness),
            _strong_affine(lambda value, size: (1, value, 0, 0, 1, 0), SHEAR),
            _strong_affine(lambda value, size: (1, 0, 0, value, 1, 0), SHEAR),
            _strong_affine(lambda value, size: (1, 0, value * size[0], 0, 1, 0), SHIFT),
            _strong_affine(lambda value, size: (1, 0, 0, 0, 1, value * size[1]), SHIFT),
        )
    ),
    magnitude=9,
    deviation=0.5,
)

VARIANTS = {"none": None, "light": LIGHT, "strong": STRONG}
