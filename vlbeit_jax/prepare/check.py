"""Whether an item can be trained on."""

from collections.abc import Collection
from typing import Any

from vlbeit_jax.data.identity import picture_digest
from vlbeit_jax.data.image import decode
from vlbeit_jax.data.masks import NotAMask, mask_bytes, read_mask
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.prepare.pictures import Dropped, Limits, checked_image
from vlbeit_jax.types import Kind

__all__ = ["Dropped", "Limits", "checked", "checked_image", "checked_inputs"]
WHICH = ("first", "second")  # Of two images.


def checked(item: Item, kind: Kind, limits: Limits) -> dict[str, Any]:
    """Returns the record of an item, in the schema of its kind; without class and group.

    Raises:
      Dropped: with the reason.
    """
    if item.fault:
        raise Dropped(item.fault)
    record: dict[str, Any] = {"id": item.key, "source": item.source}
    if kind in (Kind.TEXTS, Kind.LABELLED_TEXTS, Kind.QUESTIONS, Kind.STATEMENTS):
        record["text"] = _given(item.text, item.no_words or "no_text")
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
    image = _image(item)
    if kind is Kind.PAIRS:
        record["captions"] = list(_given(item.captions, item.no_words or "no_caption"))
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
        record["image"] = checked_image(_image(item), limits)
    if "images" in needs:
        record |= _checked_images(item, limits)
    if "text" in needs:
        record["text"] = _given(item.text, "no_text")
    if "captions" in needs:
        record["captions"] = list(_given(item.captions, "no_caption"))
    return record


def _image(item: Item) -> bytes:
    if item.image is None:
        raise Dropped("no_image")
    return item.image


def _without_images(item: Item) -> str:
    return "one_image" if item.image else "no_images"


def _checked_images(item: Item, limits: Limits) -> dict[str, bytes]:
    """Returns what to store of an item's two images; a reason begins with which of them it is."""
    by_name = {}
    images = _given(item.images, _without_images(item))
    for which, name, encoded in zip(WHICH, ("image", "second_image"), images, strict=True):
        try:
            by_name[name] = checked_image(encoded, limits)
        except Dropped as reason:
            raise Dropped(f"{which}_{reason}") from reason
    return by_name
