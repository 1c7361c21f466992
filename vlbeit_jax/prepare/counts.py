"""The counts of all parts together, as the description states them."""

import collections
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vlbeit_jax.data.answers import AnswerCounter
from vlbeit_jax.prepare.labels import Classes
from vlbeit_jax.prepare.parts import Part
from vlbeit_jax.prepare.work_plan import WorkPlan
from vlbeit_jax.types import Kind


class Counts:
    """The counts of all parts together."""

    def __init__(self, parts: Sequence[Part]):
        self.seen, self.stated = sum(p.seen for p in parts), sum(p.stated for p in parts)
        self.repeated_ids = sum(part.repeated_ids for part in parts)
        self.placed, self.dropped, self.left_out, self.skipped, self.repaired = (
            _sum(getattr(part, name) for part in parts)
            for name in ("placed", "dropped", "left_out", "skipped", "repaired")
        )
        self.first_dropped: dict[str, str] = {}
        for part in reversed(parts):
            self.first_dropped |= part.first_dropped
        self.bad_inputs = [bad for part in parts for bad in part.bad_inputs]

    def description(self) -> dict[str, Any]:
        """Returns what the description says of them."""
        return {
            "items": self.seen,
            "dropped": dict(self.dropped),
            "left_out": {reason: n for reason, n in self.left_out.items() if n},
            "skipped": dict(self.skipped),
            "repaired": dict(self.repaired),
            "repeated_ids": self.repeated_ids,
            "bad_inputs": [[pathlib.Path(path).name, why] for path, why in self.bad_inputs],
        }


def _sum(counters: Any) -> collections.Counter[str]:
    total: collections.Counter[str] = collections.Counter()
    for each in counters:
        total.update(each)
    return total


def of_kind(
    plan: WorkPlan, parts: Sequence[Part], removed: Iterable[tuple[str, Mapping[str, Any]]] = ()
) -> dict[str, Any]:
    """Returns what the description says of classes or answers.

    Args:
      plan: of the work.
      parts: with the counts of their records.
      removed: records of the parts that the set leaves out, with their splits.
    """
    if plan.kind is Kind.QUESTIONS:
        answers = AnswerCounter()
        for part in parts:
            answers.include(part.answers)
        for split, record in removed:
            answers.add(split, record["answers"], -1)
        return answers.description()
    if not plan.kind.has_label and plan.kind is not Kind.MASKS:
        return {}
    classes = Classes(plan.request.classes, plan.request.classes_file)
    for part in parts:
        classes.include(part.classes)
    for split, record in removed:
        if plan.kind is Kind.MASKS:
            classes.count_pixels(split, classes.pixels_of(record["mask"]), -1)
        else:
            classes.count(split, record["label"], -1)
    return classes.description_of_masks() if plan.kind is Kind.MASKS else classes.description()
