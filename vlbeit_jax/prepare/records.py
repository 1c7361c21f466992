"""From items to records with their split: dropped and counted, or refused, where they are wrong."""

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
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
from vlbeit_jax.prepare.pictures import Picture, examined
from vlbeit_jax.prepare.repair import repaired
from vlbeit_jax.prepare.strict import Faults, Sides, explained, keys_of_item
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
    "missing_file": "paths are relative to the folder of their index, or to --images",
    "no_caption": "cat.jpg needs its caption in cat.txt; for pictures alone use --kind=images",
}


@dataclasses.dataclass
class RecordMaker:
    """Makes records of one kind.

    Attributes:
      kind: what records hold.
      limits: for images.
      validation_share: part of the pictures, texts or groups that is held out by hash.
      max_dropped: largest share of items that may be unusable, if they have no ``Item.place``.
      classes: of labelled data.
      grouped: whether records have a group, that of their item or their own picture or text.
      official: whether the source is a published benchmark, whose held-out splits stand.
      dropped: counts by reason.
      first_dropped: by reason, the source of the first item, for messages.
      answers: counts of a set of questions.
      stated: records whose split the source states.
      seen: items so far.
      skipped: files and members that are no examples, by reason.
      repaired: texts that were mended, by reason.
      repeated_ids: records whose id an earlier one had.
      picture: of the record that was yielded last, if it has one.
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
    seen: int = 0
    skipped: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    repaired: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    repeated_ids: int = 0
    picture: Picture | None = None
    _pixels: dict[int, int] = dataclasses.field(default_factory=dict)
    _ids: set[int] = dataclasses.field(default_factory=set)

    def records(self, items: Iterable[Item]) -> Iterator[Placed]:
        """Yields each record with its split.

        Raises:
          UnusableError: an item that has a place is wrong; all of these are named.
          UsageError: too many items had to be dropped. At the end of all parts, it is asked once
            more (``require_usable``).
        """
        # What a benchmark has in two splits is decided at the end (``held_apart.py``).
        faults, sides = Faults(), None if self.official else Sides()
        for item in items:
            if item.skip:
                self.skipped[item.skip] += 1
                continue
            self.seen += 1
            self.repaired.update(item.repairs)
            item = repaired(item, self.repaired)
            try:
                split, record = self._placed(item, sides)
            except Dropped as reason:
                if item.place:
                    faults.add(item, explained(str(reason), self.limits))
                    continue
                self.dropped[str(reason)] += 1
                self.first_dropped.setdefault(str(reason), item.source or item.key)
                if self.seen >= EARLY_STOP_AFTER:
                    require_usable(self.seen, self.dropped, self.first_dropped, self.max_dropped)
                continue
            record["id"] = self._own_id(record["id"])
            yield split, record
        faults.require_none()

    def count(self, split: str, record: Mapping[str, Any]) -> None:
        """Counts the class, pixels or answers of the record that was yielded last, which stays."""
        if self.kind.has_label:
            self.classes.count(split, record["label"])
        if self.kind is Kind.MASKS:
            self.classes.count_pixels(split, self._pixels)
        if self.kind is Kind.QUESTIONS:
            self.answers.add(split, record["answers"])

    def _own_id(self, identity: str) -> str:
        """Returns an id that no record before has: another one gets a number."""
        own, number = identity, 1
        while (key := group_key(own)) in self._ids:
            number += 1
            own = f"{identity}#{number}"
        self.repeated_ids += number > 1
        self._ids.add(key)
        return own

    def _placed(self, item: Item, sides: Sides | None) -> Placed:
        """Returns an item's split and record; raises ``Dropped``."""
        record = checked(item, self.kind, self.limits)
        # Of two pictures, the one with the smaller key decides, whichever is named first.
        digests = sorted(record[name] for name in DIGESTS if name in record)
        key = picture_key(digests[0]) if digests else text_key(record["text"])
        if item.group:
            key = group_key(item.group)
        split = item.split or split_of(key, self.validation_share)
        # Without a group or a split from outside, the hash cannot put equal things apart.
        if item.place and sides:
            if fault := sides.conflict(item, split, keys_of_item(item, digests)):
                raise Dropped(fault)
        self.stated += bool(item.split)
        self.picture = None
        if "image" in record and item.image:
            self.picture = examined(item.image, self.limits)
        if self.kind.has_label:
            record["label"] = self.classes.name(item.label)
        if self.kind is Kind.MASKS:
            self._pixels = self.classes.pixels_of(record["mask"])
        if self.grouped:
            record["group"] = item.group or (digests[0] if digests else f"{key:016x}")
        if self.kind is Kind.STATEMENTS:
            record["statement"] = statement_name(item.text, item.group)
        return split, record


def require_usable(
    seen: int, dropped: Mapping[str, int], first: Mapping[str, str], max_dropped: float
) -> None:
    """Checks that most items could be used.

    Args:
      seen: number of items.
      dropped: by reason, how many could not.
      first: by reason, the source of the first of them.
      max_dropped: largest share of them.

    Raises:
      UsageError: there are more.
    """
    total = sum(dropped.values())
    if total > max_dropped * seen:
        reasons = (
            f"{reason} {count}, first {first[reason]}"
            f"{f' ({ADVICE[reason]})' if reason in ADVICE else ''}"
            for reason, count in collections.Counter(dropped).most_common()
        )
        raise UsageError(
            f"{total} of {seen} items cannot be used, more than --max_dropped={max_dropped:g}: "
            f"{'; '.join(reasons)}. Mend or remove these items, or raise the limit"
        )
