"""Records to predict for, from the lines of a file: what is wrong with one is said in its place."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from vlbeit_jax.prepare.check import Dropped, Limits, checked_inputs
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.prepare.strict import explained

LIMITS = Limits(min_side=1)  # Small images are blurred, but they can be seen.
CHUNK = 256  # Records whose predictions appear together.


def prediction_lines(
    items: Iterable[Item],
    predict: Callable[[Sequence[dict[str, Any]]], Iterable[dict[str, Any]]],
    needs: Collection[str],
    at_once: int = CHUNK,
    limits: Limits = LIMITS,
) -> Iterator[dict[str, Any]]:
    """Yields, for each item and in order, its id with a prediction or an ``error``.

    Args:
      items: of a file.
      predict: from records to as many predictions.
      needs: which of ``image``, ``images``, ``text`` and ``captions`` a record must have.
      at_once: records that are in memory, with their images.
      limits: of images.
    """
    remaining = iter(items)
    while chunk := _chunk(remaining, needs, at_once, limits):
        good = [record for record in chunk if "error" not in record]
        predictions = iter(predict(good) if good else ())
        for record in chunk:
            yield record if "error" in record else {"id": record["id"], **next(predictions)}


def _chunk(
    items: Iterator[Item], needs: Collection[str], at_once: int, limits: Limits
) -> list[dict[str, Any]]:
    checked: list[dict[str, Any]] = []
    for item in items:
        try:
            checked.append(checked_inputs(item, limits, needs))
        except Dropped as reason:
            error = f"{item.place}: {explained(str(reason), limits)}"
            checked.append({"id": item.key, "error": error})
        if len(checked) == at_once:
            break
    return checked
