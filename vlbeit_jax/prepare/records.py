"""From items to records with their split: dropped and counted, or refused, where they are wrong."""

import collections
import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from vlbeit_jax.data.answers import AnswerCounter
from vlbeit_jax.data.identity import (
    DIGESTS,
    group_key,
    picture_key,
    split_of,
    statement_name,
    text_key,
)
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.apart import Placed
from vlbeit_jax.prepare.check import Dropped, Limits, checked
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.prepare.labels import Classes
from vlbeit_jax.prepare.strict import Faults, HeldBack, Repeated, Sides, explained, keys_of_item
from vlbeit_jax.types import Kind

EARLY_STOP_AFTER = 1000
# Every record has a group.
GROUPED = (
    Kind.LABELLED_IMAGES,
    Kind.LABELLED_TEXTS,
    Kind.QUESTIONS,
    Kind.STATEMENTS,
    Kind.MASKS,
)
# What to do where a reason alone does not tell a newcomer.
ADVICE = {
    "no_caption": "cat.jpg needs its caption in cat.txt; for pictures alone use --kind=images",
}


@dataclasses.dataclass
class RecordMaker:
    """Makes records of one kind.

    Attributes:
      kind: what records hold.
      limits: for images.
      validation_share: part of the pictures, texts or groups that is held back by hash.
      max_dropped: largest share of items that may be unusable, if they have no ``Item.place``.
      classes: of labelled data.
      grouped: whether records have a group, that of their item or their own picture or text.
      official: whether the source is a published benchmark, whose held-back splits stand.
      dropped: counts by reason.
      first_dropped: by reason, the source of the first item, for messages.
      answers: counts of a set of questions.
      stated: records whose split the source states.
      left_out: records of a benchmark that repeat a held-back one, by reason.
    """

    kind: Kind
    limits: Limits
    validation_share: float
    max_dropped: float
    classes: Classes
    grouped: bool
    official: bool = False
    dropped: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    first_dropped: dict[str, str] = dataclasses.field(default_factory=dict)
    answers: AnswerCounter = dataclasses.field(default_factory=AnswerCounter)
    stated: int = 0
    left_out: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def records(self, items: Iterable[Item]) -> Iterator[Placed]:
        """Yields each record with its split.

        Raises:
          UsageError: too many items had to be dropped, or one that has a place is wrong; then all
            of these are named.
        """
        faults, sides, seen = Faults(), HeldBack() if self.official else Sides(), 0
        for seen, item in enumerate(items, 1):
            try:
                split, record = self._placed(item, sides)
            except Repeated as reason:
                self.left_out[str(reason)] += 1
                continue
            except Dropped as reason:
                if item.place:
                    faults.add(item, explained(str(reason), self.limits))
                    continue
                self.dropped[str(reason)] += 1
                self.first_dropped.setdefault(str(reason), item.source or item.key)
                if seen >= EARLY_STOP_AFTER:
                    self._stop_above(seen)
                continue
            yield split, record
        faults.require_none()
        self._stop_above(seen)

    def _placed(self, item: Item, sides: Sides | HeldBack) -> Placed:
        """Returns an item's split and record; raises ``Dropped`` or ``Repeated``."""
        record = checked(item, self.kind, self.limits)
        # Of two pictures, the one with the smaller key decides, whichever is named first.
        digests = sorted(record[name] for name in DIGESTS if name in record)
        key = picture_key(digests[0]) if digests else text_key(record["text"])
        if item.group:
            key = group_key(item.group)
        split = item.split or split_of(key, self.validation_share)
        # Without a group or a split from outside, the hash cannot put equal things apart.
        if item.place and (fault := sides.conflict(item, split, keys_of_item(item, digests))):
            raise Dropped(fault)
        self.stated += bool(item.split)
        if self.kind.has_label:
            record["label"] = self.classes.name(item.label)
            self.classes.count(split, record["label"])
        if self.kind is Kind.MASKS:
            self.classes.count_mask(split, record["mask"])
        if self.kind is Kind.QUESTIONS:
            self.answers.add(split, item.answers)
        if self.grouped:
            record["group"] = item.group or (digests[0] if digests else f"{key:016x}")
        if self.kind is Kind.STATEMENTS:
            record["statement"] = statement_name(item.text, item.group)
        return split, record

    def description(self) -> dict[str, Any]:
        """Returns what the set's description says of its classes or answers, at the end."""
        if self.kind is Kind.QUESTIONS:
            return self.answers.description()
        if self.kind is Kind.MASKS:
            return self.classes.description_of_masks()
        return self.classes.description() if self.kind.has_label else {}

    def _stop_above(self, seen: int) -> None:
        if self.dropped.total() > self.max_dropped * seen:
            reasons = (
                f"{reason} {count}, first {self.first_dropped[reason]}"
                f"{f' ({ADVICE[reason]})' if reason in ADVICE else ''}"
                for reason, count in self.dropped.most_common()
            )
            raise UsageError(
                f"{self.dropped.total()} of {seen} items cannot be used, more than "
                f"--max_dropped={self.max_dropped:g}: {'; '.join(reasons)}. Mend or remove these "
                "items, or raise the limit"
            )
