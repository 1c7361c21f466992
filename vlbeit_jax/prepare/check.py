"""Whether an item can be trained on; a decompression bomb is refused by its header."""

import dataclasses
import functools
import io
import warnings
from collections.abc import Collection
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageOps

from vlbeit_jax.data.identity import picture_digest
from vlbeit_jax.data.image import decode
from vlbeit_jax.data.masks import NotAMask, mask_bytes, read_mask
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.types import Kind


@dataclasses.dataclass(frozen=True)
class Limits:
    """What an image may be.

    Attributes:
      min_side: shortest side, pixels.
      max_pixels: height times width, as the header states it.
      max_aspect: longer side over shorter side.
      short_side: re-encode larger images to this shorter side (JPEG, quality 90); 0: keep the file
        as it is.
    """

    min_side: int = 16
    max_pixels: int = 64_000_000
    max_aspect: float = 10.0
    short_side: int = 0

    def of_benchmark(self) -> "Limits":
        """Returns limits that leave out no picture for its shape: a benchmark has some such."""
        return dataclasses.replace(self, min_side=1, max_aspect=float(self.max_pixels))


WHICH = ("first", "second")  # Of two images.


class Dropped(Exception):
    """An item that cannot be used; the argument is the reason under which it is counted."""


def checked(item: Item, kind: Kind, limits: Limits) -> dict[str, Any]:
    """The record of an item, in the schema of its kind; without class and group.

    Raises:
      Dropped: with the reason.
    """
    if item.fault:
        raise Dropped(item.fault)
    record: dict[str, Any] = {"id": item.key, "source": item.source}
    if kind in (Kind.TEXTS, Kind.LABELLED_TEXTS, Kind.QUESTIONS, Kind.STATEMENTS):
        record["text"] = _given(item.text, "no_text")
    if kind is Kind.QUESTIONS:
        record["answers"] = list(_given(item.answers, "no_answers"))
    if kind is Kind.STATEMENTS:
        if item.truth is None:
            raise Dropped("no_truth")
        first, second = _given(item.images, _without_images(item))
        record |= {"truth": item.truth, "second_sha256": picture_digest(second)}
        record |= {"sha256": picture_digest(first), **_checked_images(item, limits)}
    if kind.has_label and item.label == "":  # A number may be 0.
        raise Dropped("no_label")
    if kind in (Kind.TEXTS, Kind.LABELLED_TEXTS, Kind.STATEMENTS):
        return record
    image = _given(item.image, "no_image")
    if kind is Kind.PAIRS:
        record["captions"] = list(_given(item.captions, "no_caption"))
    record |= {"sha256": picture_digest(image), "image": checked_image(image, limits)}
    if kind is Kind.MASKS:
        record["mask"] = checked_mask(_given(item.mask, "no_mask"), record["image"])
    return record


def checked_mask(encoded: bytes, image: bytes) -> bytes:
    """Returns the mask of a stored image, to be stored.

    Raises:
      Dropped: it is no mask, or has another size than the image has when it is shown upright.
    """
    try:
        mask = read_mask(encoded)
    except NotAMask as error:
        raise Dropped(f"its mask {error}") from error
    (height, width), (rows, columns) = mask.shape, decode(image).shape[:2]
    if (height, width) != (rows, columns):
        raise Dropped(
            f"its mask has {height} x {width} pixels, but its image {rows} x {columns} (height x "
            "width); each pixel needs its class"
        )
    return mask_bytes(mask)


def _given(value: Any, reason: str) -> Any:
    if not value:
        raise Dropped(reason)
    return value


def checked_inputs(item: Item, limits: Limits, needs: Collection[str]) -> dict[str, Any]:
    """Returns the record of an item without annotation, for a prediction.

    Args:
      item: of a file.
      limits: of images.
      needs: which of ``image``, ``images``, ``text`` and ``captions`` the record must have.

    Raises:
      Dropped: with the reason.
    """
    if item.fault:
        raise Dropped(item.fault)
    record: dict[str, Any] = {"id": item.key}
    if "image" in needs:
        record["image"] = checked_image(_given(item.image, "no_image"), limits)
    if "images" in needs:
        record |= _checked_images(item, limits)
    if "text" in needs:
        record["text"] = _given(item.text, "no_text")
    if "captions" in needs:
        record["captions"] = list(_given(item.captions, "no_caption"))
    return record


def _without_images(item: Item) -> str:
    return "one_image" if item.image else "no_images"


def _checked_images(item: Item, limits: Limits) -> dict[str, bytes]:
    """Returns what to store of an item's two images; a reason begins with which of them it is."""
    found = {}
    images = _given(item.images, _without_images(item))
    for which, name, encoded in zip(WHICH, ("image", "second_image"), images, strict=True):
        try:
            found[name] = checked_image(encoded, limits)
        except Dropped as reason:
            raise Dropped(f"{which}_{reason}") from reason
    return found


@functools.lru_cache(maxsize=2)  # Questions about one picture follow each other.
def checked_image(encoded: bytes, limits: Limits) -> bytes:
    """Returns the bytes to store: the file, or a new one if it is transparent or too large.

    Raises:
      Dropped: not_an_image, image_too_large, image_too_small, image_too_elongated or
        undecodable_image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", Image.DecompressionBombWarning
            )  # The limit below is stricter and counted.
            header = Image.open(io.BytesIO(encoded))
    except Image.DecompressionBombError as error:
        raise Dropped("image_too_large") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise Dropped("not_an_image") from error
    width, height = header.size
    if width * height > limits.max_pixels:
        raise Dropped("image_too_large")
    if min(width, height) < limits.min_side:
        raise Dropped("image_too_small")
    if max(width, height) > limits.max_aspect * min(width, height):
        raise Dropped("image_too_elongated")
    if header.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in header.info:
        encoded = _on_white(header)
    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None or not _complete(encoded):
        raise Dropped("undecodable_image")
    if limits.short_side and min(pixels.shape[:2]) > limits.short_side:
        scale = limits.short_side / min(pixels.shape[:2])
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
    return encoded


def _complete(encoded: bytes) -> bool:
    """Returns whether the file is complete.

    OpenCV before version 5 fills the missing rest of a file with grey and reports nothing.
    """
    try:
        Image.open(io.BytesIO(encoded)).load()
    except (OSError, ValueError, SyntaxError):
        return False
    return True


def _on_white(image: Image.Image) -> bytes:
    """A PNG of a transparent image on white, as a page would show it."""
    try:
        layer = ImageOps.exif_transpose(image).convert("RGBA")
    except (OSError, ValueError, SyntaxError) as error:
        raise Dropped("undecodable_image") from error
    page = Image.new("RGBA", layer.size, "white")
    page.alpha_composite(layer)
    buffer = io.BytesIO()
    page.convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()
