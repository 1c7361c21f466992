"""Image bytes to pixels, and the augmentation of BEiT v2's pretraining."""

import math

import cv2
import numpy as np

from vlbeit_jax.data.draws import Draws
from vlbeit_jax.shapes import Float, UInt8

cv2.setNumThreads(
    0
)  # Grain's threads and processes are the parallelism; OpenCV's own would fight them.

ASPECT = math.log(4 / 3)
CROP_TRIES = 10
GREY = np.array([0.299, 0.587, 0.114])
TO_GREY, IDENTITY = np.tile(GREY, (3, 1)), np.eye(3)


def decode(encoded: bytes) -> UInt8[np.ndarray, "height width 3"]:
    """RGB pixels, upright as the EXIF orientation says, whatever the file's colour mode.

    Raises:
      ValueError: the bytes are no image that OpenCV can read.
    """
    buffer = np.frombuffer(encoded, np.uint8)
    image = cv2.imdecode(buffer, cv2.IMREAD_COLOR_RGB) if buffer.size else None
    if image is None:
        raise ValueError(f"{len(encoded)} bytes that are not a readable image")
    return image


def resize(
    image: UInt8[np.ndarray, "h w 3"], height: int, width: int
) -> UInt8[np.ndarray, "height width 3"]:
    """Resizes by area averaging when shrinking, bicubic when enlarging.

    The result is within half a grey level of PIL's antialiased bicubic.
    """
    shrinks = image.shape[0] * image.shape[1] > height * width
    return cv2.resize(
        image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    )


def random_view(
    draws: Draws,
    image: UInt8[np.ndarray, "h w 3"],
    size: int,
    *,
    crop_scale: float,
    colour_jitter: float,
    flip: float,
) -> UInt8[np.ndarray, "size size 3"]:
    """A training view: random resized crop, flip, colour jitter.

    Jitter comes after the crop, where there are fewest pixels, and as one linear map of the colours
    (brightness, contrast and saturation are linear), so that values are clipped once and not after
    each.
    """
    top, left, height, width = _crop_box(draws, image.shape[0], image.shape[1], crop_scale)
    view = resize(image[top : top + height, left : left + width], size, size)
    if draws.uniform() < flip:
        view = cv2.flip(view, 1)
    if colour_jitter:
        view = cv2.transform(view, _jitter_map(draws, view, colour_jitter))
    return np.ascontiguousarray(view)


def centre_view(image: UInt8[np.ndarray, "h w 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The evaluation view: the shorter side to ``size``, then the centre."""
    height, width = image.shape[:2]
    scale = size / min(height, width)
    image = resize(image, max(size, round(height * scale)), max(size, round(width * scale)))
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return np.ascontiguousarray(image[top : top + size, left : left + size])


def zoomed_view(
    image: UInt8[np.ndarray, "h w 3"], size: int, share: float
) -> UInt8[np.ndarray, "size size 3"]:
    """The centre of an evaluation view whose side is ``size / share``.

    With a share of 0.875, the shorter side becomes 256 and the centre of 224 is kept.
    """
    whole = centre_view(image, max(size, round(size / share)))
    start = (whole.shape[0] - size) // 2
    return np.ascontiguousarray(whole[start : start + size, start : start + size])


def squashed_view(image: UInt8[np.ndarray, "h w 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The whole image as a square: nothing is cut off, but shapes are distorted."""
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

    Each factor is drawn from 1 - amount to 1 + amount.
    """
    factors = [draws.uniform(max(0, 1 - amount), 1 + amount) for _ in range(3)]
    mean = np.array(cv2.mean(view)[:3])
    matrix, offset = IDENTITY, np.zeros(3)
    for kind in draws.choose(3, 3):
        factor = factors[kind]
        step, shift = IDENTITY * factor, 0.0
        if kind == 1:
            shift = (1 - factor) * (GREY @ (matrix @ mean + offset))
        elif kind == 2:
            step = step + (1 - factor) * TO_GREY
        matrix, offset = step @ matrix, step @ offset + shift
    return np.concatenate([matrix, offset[:, None]], axis=1).astype(np.float32)
