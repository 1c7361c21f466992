"""Whether a picture can be trained on, from its header and one decoding.

A decompression bomb is refused by its header. A photograph is decoded at an eighth of its size,
which reads the whole file as decoding at full size does, and takes half the time.
"""

import dataclasses
import functools
import io
import warnings
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps

from vlbeit_jax.data.headers import MAX_PIXELS
from vlbeit_jax.shapes import UInt8


@dataclasses.dataclass(frozen=True)
class Limits:
    """What an image may be.

    Attributes:
      min_side: shortest side, pixels.
      max_pixels: height times width, as the header states it.
      max_aspect: longer side over shorter side.
      short_side: re-encode larger images to this shorter side (JPEG, quality 90); 0: keep the file
        as it is.
      max_bytes: size of the file.
    """

    min_side: int = 16
    max_pixels: int = MAX_PIXELS
    max_aspect: float = 10.0
    short_side: int = 0
    max_bytes: int = 100_000_000

    def of_benchmark(self) -> "Limits":
        """Returns limits that leave out no picture for its shape: a benchmark has some such."""
        return dataclasses.replace(self, min_side=1, max_aspect=float(self.max_pixels))


class Dropped(Exception):
    """An item that cannot be used; the argument is the reason under which it is counted."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture that can be used.

    Attributes:
      stored: bytes of the file to store.
      height: in pixels, as the header states it.
      width: in pixels.
      look: bits that pictures which look alike share (``look_of``).
    """

    stored: bytes
    height: int
    width: int
    look: tuple[int, int]


# OpenCV 4 fills the missing rest of a file with grey and reports nothing.
REPORTS_CUTS = int(cv2.__version__.split(".")[0]) >= 5
SAME_GREY = 4  # Of 256.
# At an eighth of its size, a picture of this shorter side still has more pixels than its look.
REDUCED_FROM = 256
WITH_ALPHA = ("LA", "PA", "RGBA", "RGBa", "La")
# Pillow reads these, and OpenCV does not.
FOR_PILLOW = ("ICNS", "ICO", "PCX", "TGA")


def checked_image(encoded: bytes, limits: Limits) -> bytes:
    """Returns the bytes to store: the file, or a new one if it is transparent or too large.

    Raises:
      Dropped: see ``examined``.
    """
    return examined(encoded, limits).stored


@functools.lru_cache(maxsize=2)  # Questions about one picture follow each other.
def examined(encoded: bytes, limits: Limits) -> Picture:
    """Decodes a picture once, after its header was found to be within the limits.

    Raises:
      Dropped: empty_file, file_too_large, svg_image, not_an_image, image_too_large,
        image_too_small, image_too_elongated or undecodable_image.
    """
    header = _header(encoded, limits)
    width, height = header.size
    if width * height > limits.max_pixels:
        raise Dropped("image_too_large")
    if min(width, height) < limits.min_side:
        raise Dropped("image_too_small")
    if max(width, height) > limits.max_aspect * min(width, height):
        raise Dropped("image_too_elongated")
    flat = header.mode in WITH_ALPHA or "transparency" in header.info
    # A new size needs all pixels; which side is the shorter one does not depend on orientation.
    shrinks = bool(limits.short_side) and min(width, height) > limits.short_side
    if flat or header.format in FOR_PILLOW:
        pixels = _on_white(header, encoded)
        stored = b"" if shrinks else _png(pixels)
    else:
        reduced = not shrinks and min(width, height) >= REDUCED_FROM
        pixels, stored = _decoded(encoded, reduced), encoded
    if shrinks:
        scale = limits.short_side / min(pixels.shape[:2])
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        stored = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
    return Picture(stored, height, width, look_of(pixels))


def look_of(pixels: UInt8[np.ndarray, "h w 3"]) -> tuple[int, int]:
    """Returns the difference hash of a picture, two numbers of 64 bits ("dHash", N. Krawetz 2013).

    In a version of 9 x 8 grey pixels, each bit of the first says whether a pixel is brighter than
    its left neighbour; in one of 8 x 9, those of the second compare with the upper neighbour. A
    difference of up to ``SAME_GREY`` counts as none, so that noise on a plain area changes no bit.
    """
    rows, columns = (
        cv2.cvtColor(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
        for size in ((9, 8), (8, 9))
    )
    across = cv2.subtract(rows[:, 1:], rows[:, :-1]) > SAME_GREY
    down = cv2.subtract(columns[1:], columns[:-1]) > SAME_GREY
    first, second = (int.from_bytes(np.packbits(bits).tobytes(), "big") for bits in (across, down))
    return first, second


def _header(encoded: bytes, limits: Limits) -> Image.Image:
    """Returns a picture of which nothing but the header was read."""
    if not encoded:
        raise Dropped("empty_file")
    if len(encoded) > limits.max_bytes:
        raise Dropped("file_too_large")
    try:
        with warnings.catch_warnings():
            # The limit of pixels is stricter and counted.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(encoded))
    except Image.DecompressionBombError as error:
        raise Dropped("image_too_large") from error
    except (OSError, ValueError, SyntaxError) as error:
        start = encoded[:1000].lstrip().lower()
        is_svg = (
            start.startswith((b"<svg", b"<?xml", b"<!--", b"<!doctype svg")) and b"<svg" in start
        )
        raise Dropped("svg_image" if is_svg else "not_an_image") from error
    except Exception as error:  # Pillow's readers raise errors of many types on damaged files.
        raise Dropped("undecodable_image") from error


def _decoded(encoded: bytes, reduced: bool) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the pixels, in the order BGR; at an eighth of the size if ``reduced``."""
    size = cv2.IMREAD_REDUCED_COLOR_8 if reduced else cv2.IMREAD_COLOR
    try:
        pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), size)
    except cv2.error as error:
        raise Dropped("undecodable_image") from error
    if pixels is None or not (REPORTS_CUTS or _complete(encoded)):
        raise Dropped("undecodable_image")
    return pixels


def _complete(encoded: bytes) -> bool:
    """Returns whether the file is complete."""
    try:
        Image.open(io.BytesIO(encoded)).load()
    except (OSError, ValueError, SyntaxError):
        return False
    return True


def _on_white(image: Image.Image, encoded: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the pixels (BGR) of a picture on white, as a page would show it."""
    colour: Any = image.info.get("transparency")
    if image.mode.startswith("I") or (isinstance(colour, tuple) and max(colour) > 255):
        return _deep_on_white(encoded, colour)
    try:
        layer = _upright(image).convert("RGBA")
    except Exception as error:  # See ``_header``.
        raise Dropped("undecodable_image") from error
    page = Image.new("RGBA", layer.size, "white")
    page.alpha_composite(layer)
    return cv2.cvtColor(np.asarray(page), cv2.COLOR_RGBA2BGR)


def _deep_on_white(encoded: bytes, colour: int | tuple[int, ...]) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the pixels of a picture of 16 bits, one colour of which is transparent.

    Pillow would clip grey to 255, so that nearly everything is white.
    """
    pixels: Any = cv2.imdecode(
        np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH
    )
    if pixels is None:
        raise Dropped("undecodable_image")
    if pixels.dtype == np.uint16:
        clear = (pixels == np.atleast_1d(colour)[::-1]).all(-1)
        pixels = (pixels >> 8).astype(np.uint8)
        pixels[clear] = 255
    return pixels


def _upright(image: Image.Image) -> Image.Image:
    """Returns the picture as its EXIF orientation says; damaged EXIF says nothing."""
    image.load()
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Pillow's reader of EXIF raises errors of many types on damaged bytes.
        return image


def _png(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)).save(buffer, "PNG")
    return buffer.getvalue()
