"""Records to predict for, from the lines of a file: what is wrong with one is said in its place."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from vlbeit_jax.prepare.check import Dropped, Limits, checked_inputs
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.prepare.strict import explained

LIMITS = Limits(min_side=1)  # Small images are blurred, but they can be seen.
CHUNK = 256  # Records that are in memory at a time, with their images.


def prediction_lines(
    items: Iterable[Item],
    predict: Callable[[Sequence[dict[str, Any]]], Iterable[dict[str, Any]]],
    *,
    needs_image: bool,
    needs_text: bool,
    needs_captions: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yields, for each item and in order, its id with a prediction or an ``error``.

    Args:
      items: of a file.
      predict: from records to as many predictions.
      needs_image: whether a record must have an image.
      needs_text: whether it must have a text.
      needs_captions: whether it must have captions, among which one is chosen.
    """
    needs = {
        "needs_image": needs_image,
        "needs_text": needs_text,
        "needs_captions": needs_captions,
    }
    remaining = iter(items)
    while chunk := _chunk(remaining, needs):
        good = [record for record in chunk if "error" not in record]
        predictions = iter(predict(good) if good else ())
        for record in chunk:
            yield record if "error" in record else {"id": record["id"], **next(predictions)}


def _chunk(items: Iterator[Item], needs: Mapping[str, bool]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for item in items:
        try:
            found.append(checked_inputs(item, LIMITS, **needs))
        except Dropped as reason:
            error = f"{item.place}: {explained(str(reason), LIMITS)}"
            found.append({"id": item.key, "error": error})
        if len(found) == CHUNK:
            break
    return found
