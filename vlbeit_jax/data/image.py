"""Image bytes to pixels, and the augmentation of BEiT v2's pretraining."""

import dataclasses
import math
from typing import NamedTuple

import cv2
import numpy as np

from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.headers import shape_in_header
from vlbeit_jax.data.resize import resize, resize_view
from vlbeit_jax.shapes import Float, UInt8

cv2.setNumThreads(
    0
)  # Grain's threads and processes are the parallelism; OpenCV's own would fight them.

# Decoding flags by how much smaller a JPEG becomes. A combination of flags is no constant of cv2.
REDUCED = {1: 0, 2: 16, 4: 32, 8: 64}
ASPECT = math.log(4 / 3)
CROP_TRIES = 10
GREY = (0.299, 0.587, 0.114)  # Luma of red, green and blue (ITU-R BT.601).


class Box(NamedTuple):
    """A part of a picture, pixels."""

    top: int
    left: int
    height: int
    width: int

    def of(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "height width 3"]:
        """Returns this part of a picture."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]


def decode(encoded: bytes, reduction: int = 1) -> UInt8[np.ndarray, "height width 3"]:
    """Returns RGB pixels, upright as the EXIF orientation says, whatever the file's colour mode.

    Args:
      encoded: the file.
      reduction: 1, 2, 4 or 8: a JPEG is decoded at this fraction of its size, rounded up.

    Raises:
      ValueError: the bytes are no image that OpenCV can read.
    """
    buffer = np.frombuffer(encoded, np.uint8)
    flags = cv2.IMREAD_COLOR_RGB | REDUCED[reduction]
    image = cv2.imdecode(buffer, flags) if buffer.size else None
    if image is None:
        raise ValueError(f"{len(encoded)} bytes that are not a readable image")
    return image


@dataclasses.dataclass(frozen=True)
class RandomView:
    """A training view: random resized crop, flip, colour jitter.

    Attributes:
      size: side of the view, pixels.
      crop_scale: smallest area of the crop, share of the picture.
      colour_jitter: largest change of brightness, contrast and saturation.
      flip: probability of a horizontal flip.
    """

    size: int
    crop_scale: float
    colour_jitter: float
    flip: float

    def of_file(self, draws: Draws, encoded: bytes) -> UInt8[np.ndarray, "size size 3"]:
        """Returns a view of an encoded picture.

        If a JPEG's crop is at least four times as large as the view along both sides, the JPEG is
        decoded at a half, a quarter or an eighth of its size. The sides of the crop are then
        rounded down to whole pixels of the reduced picture.
        The draws are the same as for the whole picture.

        Raises:
          ValueError: the bytes are no image that OpenCV can read.
        """
        shape = shape_in_header(encoded)
        if shape is None or _reduction(shape, self.size) == 1:
            return self(draws, decode(encoded))
        box = Box(*_crop_box(draws, *shape, self.crop_scale))
        factor = _reduction((box.height, box.width), self.size)
        top, left, height, width = (side // factor for side in box)
        part = Box(top, left, height, width).of(decode(encoded, factor))
        return self._finished(draws, part)

    def __call__(
        self, draws: Draws, image: UInt8[np.ndarray, "h w 3"]
    ) -> UInt8[np.ndarray, "size size 3"]:
        """Returns a view of a decoded picture."""
        height, width = image.shape[:2]
        box = Box(*_crop_box(draws, height, width, self.crop_scale))
        return self._finished(draws, box.of(image))

    def _finished(self, draws: Draws, part: np.ndarray) -> np.ndarray:
        """Jitter comes last, where there are fewest pixels.

        It is one linear map of the colours (brightness, contrast and saturation are linear), so
        that values are clipped once and not after each.
        """
        view = resize_view(part, self.size)
        if draws.uniform() < self.flip:
            view = cv2.flip(view, 1)
        if self.colour_jitter:
            view = cv2.transform(view, _jitter_map(draws, view, self.colour_jitter))
        return np.ascontiguousarray(view)


def _reduction(shape: tuple[int, int], size: int) -> int:
    """Returns the largest reduction that leaves twice the pixels of a view along both sides.

    A reduced JPEG is sharper than an area average. With fewer pixels left, that would show.
    """
    return max(each for each in REDUCED if each == 1 or min(shape) >= 2 * each * size)


def centre_view(image: UInt8[np.ndarray, "h w 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Returns the evaluation view: the shorter side to ``size``, then the centre."""
    height, width = image.shape[:2]
    scale = size / min(height, width)
    image = resize(image, max(size, round(height * scale)), max(size, round(width * scale)))
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return np.ascontiguousarray(image[top : top + size, left : left + size])


def zoomed_view(
    image: UInt8[np.ndarray, "h w 3"], size: int, share: float
) -> UInt8[np.ndarray, "size size 3"]:
    """Returns the centre of an evaluation view whose side is ``size / share``.

    With a share of 0.875, the shorter side becomes 256 and the centre of 224 is kept.
    """
    whole = centre_view(image, max(size, round(size / share)))
    start = (whole.shape[0] - size) // 2
    return np.ascontiguousarray(whole[start : start + size, start : start + size])


def squashed_view(image: UInt8[np.ndarray, "h w 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    """Returns the whole image as a square: nothing is cut off, but shapes are distorted."""
    return np.ascontiguousarray(resize(image, size, size))


def _crop_box(draws: Draws, height: int, width: int, smallest: float) -> tuple[int, int, int, int]:
    """Returns (top, left, height, width) of a box of random area and aspect ratio.

    After ten boxes that do not fit, it is the largest centred box of an allowed aspect ratio.
    """
    for _ in range(CROP_TRIES):
        area = height * width * draws.uniform(smallest, 1)
        ratio = math.exp(draws.uniform(-ASPECT, ASPECT))
        box_width, box_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < box_width <= width and 0 < box_height <= height:
            return (
                draws.below(height - box_height + 1),
                draws.below(width - box_width + 1),
                box_height,
                box_width,
            )
    box_width = max(1, min(width, round(height * math.exp(ASPECT))))
    box_height = max(1, min(height, round(width * math.exp(ASPECT))))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width


def _jitter_map(
    draws: Draws, view: UInt8[np.ndarray, "h w 3"], amount: float
) -> Float[np.ndarray, "3 4"]:
    """Returns brightness, contrast and saturation in random order as one affine map.

    Each factor is drawn from 1 - amount to 1 + amount. Every step scales colours and moves them
    towards a grey. So any sequence of them is ``own * colour + grey * luma(colour) + shift``, and
    three numbers are enough.
    """
    factors = [draws.uniform(max(0, 1 - amount), 1 + amount) for _ in range(3)]
    luma = sum(weight * level for weight, level in zip(GREY, cv2.mean(view), strict=False))
    own, grey, shift = 1.0, 0.0, 0.0
    for kind in draws.choose(3, 3):
        factor = factors[kind]
        if kind == 2:  # Towards each pixel's own grey.
            own, grey = factor * own, factor * grey + (1 - factor) * (own + grey)
            continue
        target = (own + grey) * luma + shift if kind == 1 else 0.0  # The mean grey, or black.
        own, grey = factor * own, factor * grey
        shift = factor * shift + (1 - factor) * target
    rows = [[own * (i == j) + grey * weight for j, weight in enumerate(GREY)] for i in range(3)]
    return np.array([[*row, shift] for row in rows], np.float32)
