"""Masks: files with the class of each pixel, and pictures of them."""

import io

import cv2
import numpy as np
from PIL import Image

from vlbeit_jax.shapes import UInt8

OVERLAY = 0.55  # Share of the class's colour in an overlay.


class NotAMask(ValueError):
    """A file that is no picture of class numbers; the argument says what it is instead."""


def read_mask(encoded: bytes) -> UInt8[np.ndarray, "height width"]:
    """Returns the number in each pixel of an indexed or grey file of 8 bits.

    Of an indexed file it is the index, whatever colour stands for it.

    Raises:
      NotAMask: the file cannot be read, or has other pixels.
    """
    try:
        image = Image.open(io.BytesIO(encoded))
        image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise NotAMask("is not a readable image") from error
    if image.format == "JPEG":
        raise NotAMask("is a JPEG file, whose numbers are not exact; save it as PNG")
    if image.mode not in ("P", "L"):
        raise NotAMask(
            f"has pixels of type {image.mode}, but the number of a class is needed: an indexed or "
            "a grey image of 8 bits"
        )
    return np.array(image, np.uint8)


def mask_bytes(mask: UInt8[np.ndarray, "height width"]) -> bytes:
    """Returns a grey PNG of a mask, as prepared sets hold it."""
    return cv2.imencode(".png", mask)[1].tobytes()


def stored_mask(encoded: bytes) -> UInt8[np.ndarray, "height width"]:
    """Returns the mask that ``mask_bytes`` stored.

    Raises:
      ValueError: the bytes cannot be decoded.
    """
    decoded = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise ValueError(f"{len(encoded)} bytes that are no mask")
    return np.asarray(decoded, np.uint8)


def indexed_png(mask: UInt8[np.ndarray, "height width"]) -> bytes:
    """Returns an indexed PNG of a mask, whose colours are those of ``palette``."""
    image = Image.fromarray(mask)
    image.putpalette(palette().tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def palette() -> UInt8[np.ndarray, "256 3"]:
    """Returns a colour for each number: class 0 is black, and neighbours look different.

    It is the palette of PASCAL VOC: the bits of the number, spread over the three channels.
    """
    numbers = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((numbers >> channel) & 1) << (7 - bit)).astype(np.uint8)
        numbers = numbers >> 3
    return colours


def overlay(
    image: UInt8[np.ndarray, "height width 3"], mask: UInt8[np.ndarray, "height width"]
) -> UInt8[np.ndarray, "height width 3"]:
    """Returns a picture under the colours of its mask."""
    mixed = OVERLAY * palette()[mask] + (1 - OVERLAY) * image
    return mixed.round().astype(np.uint8)
