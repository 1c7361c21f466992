"""The work on one part: reads its units, and writes its records with digests, keys and counts.

``write_part`` is a pure function of the plan and the part's number. So processes, machines or
another engine may call it in any order, and more than once.
"""

import collections
import contextlib
import pathlib
import time
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import cv2
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter

from vlbeit_jax.data.content import record_digest
from vlbeit_jax.data.identity import TEXTS, group_key, text_key
from vlbeit_jax.data.keys import keys_of
from vlbeit_jax.prepare.crashed import crashed
from vlbeit_jax.prepare.encoding import Encoder
from vlbeit_jax.prepare.formats import FORMATS
from vlbeit_jax.prepare.formats.base import BadInput, units_in
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.prepare.labels import Classes
from vlbeit_jax.prepare.parts import (
    GROUPS,
    Arrays,
    Part,
    arrays_file,
    records_file,
    sha256_of,
    whole,
)
from vlbeit_jax.prepare.pictures import Picture
from vlbeit_jax.prepare.pool import Report, silent
from vlbeit_jax.prepare.records import RecordMaker
from vlbeit_jax.prepare.work_plan import WorkPlan
from vlbeit_jax.prepare.writer import FEATURES, GROUP
from vlbeit_jax.storage import unmasked

REPORT_EVERY = 0.25  # Seconds.
EXAMPLES, SHOWN = 3, 200  # Records of a part to show, and the characters of their texts.
SAID = ("text", "label")


def features_of(plan: WorkPlan) -> tfds.features.FeaturesDict:
    """Returns the fields of the plan's records."""
    return tfds.features.FeaturesDict(FEATURES[plan.kind] | (GROUP if plan.request.grouped else {}))


def write_part(plan: WorkPlan, number: int, report: Report = silent) -> Part:
    """Writes a part, unless it is finished.

    Args:
      plan: of the whole work.
      number: of the part.
      report: gets the progress.

    Returns:
      Its counts.

    Raises:
      UsageError: too many items cannot be used, or a file is damaged and was not to be skipped.
      StorageError: a file cannot be read now, which does not make it a damaged one.
    """
    if finished := plan.finished(number):
        return finished
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # Damage is counted.
    bad = crashed(plan, number)
    while True:
        try:
            part = _written(plan, number, bad, report)
        except BadInput as error:
            if (told := unmasked(error)) is not error:
                raise told from error
            if not plan.skips_bad_inputs or error.path in bad:
                raise
            bad[error.path] = error.why  # The next try leaves out the whole file.
            continue
        part.bad_inputs = [list(each) for each in bad.items()]
        part.save(plan.parts_folder, number)
        return part


def _written(plan: WorkPlan, number: int, bad: Collection[str], report: Report) -> Part:
    """Writes the files of a part except its counts, from its inputs except the bad ones."""
    maker, part = _maker(plan), Part(plan.asked(number))
    left_out: collections.Counter[str] = collections.Counter()
    with _Files(plan, number, part) as files:
        items = _reported(_items(plan, number, bad, report), maker, report)
        placed = _counted(maker.records(items), part)
        if plan.others:
            placed = plan.others.apart(placed, left_out, all_held_out=plan.request.official)
        for split, record in placed:
            maker.count(split, record)
            files.write(split, record, maker.picture)
        files.publish()
    part.left_out = dict(left_out)
    _describe(part, maker)
    return part


def _maker(plan: WorkPlan) -> RecordMaker:
    asked = plan.request
    classes = Classes(asked.classes, asked.classes_file)
    return RecordMaker(
        plan.kind,
        plan.limits,
        asked.validation_share,
        plan.max_dropped,
        classes,
        asked.grouped,
        asked.official,
    )


def _describe(part: Part, maker: RecordMaker) -> None:
    part.seen, part.stated, part.repeated_ids = maker.seen, maker.stated, maker.repeated_ids
    part.dropped, part.first_dropped = dict(maker.dropped), maker.first_dropped
    part.skipped = dict(maker.skipped)
    part.repaired, part.classes = dict(maker.repaired), maker.classes.counts
    part.answers = maker.answers.description()


def _items(plan: WorkPlan, number: int, bad: Collection[str], report: Report) -> Iterator[Item]:
    form = FORMATS[plan.request.source_format]
    for unit in units_in(plan.units[number]):
        if unit.path not in bad:
            report(0, {}, unit.path)  # In case that a library crashes.
            for item in form.read(unit, plan.options):
                yield plan.fits(item) if plan.fits else item


def _reported(items: Iterator[Item], maker: RecordMaker, report: Report) -> Iterator[Item]:
    last, told, dropped = time.monotonic(), 0, collections.Counter()
    for item in items:
        yield item
        if (now := time.monotonic()) - last >= REPORT_EVERY:
            report(maker.seen - told, maker.dropped - dropped)
            last, told, dropped = now, maker.seen, maker.dropped.copy()
    report(maker.seen - told, maker.dropped - dropped)


def _counted(placed: Iterator[tuple[str, dict[str, Any]]], part: Part) -> Iterator[Any]:
    for split, record in placed:
        part.placed[split] = part.placed.get(split, 0) + 1
        yield split, record


def _example(record: Mapping[str, Any], picture: Picture | None) -> dict[str, Any]:
    said = [*record.get("captions", ()), *(record[name] for name in SAID if name in record)]
    size = [picture.height, picture.width] if picture else None
    return {"id": record["id"], "size": size, "said": [text[:SHOWN] for text in said]}


class _Files:
    """The files of a part. ``publish`` makes them appear; without it, they are removed."""

    def __init__(self, plan: WorkPlan, number: int, part: Part):
        self._plan, self._number, self._part = plan, number, part
        self._encoder, self._arrays = Encoder(features_of(plan)), Arrays()
        self._writers: dict[str, ArrayRecordWriter] = {}
        self._paths: dict[str, pathlib.Path] = {}
        self._unpublished = contextlib.ExitStack()

    def __enter__(self) -> "_Files":
        return self

    def __exit__(self, *error: Any) -> None:
        for writer in self._writers.values():
            with contextlib.suppress(RuntimeError):  # What is left is thrown away.
                writer.close()
        self._unpublished.__exit__(*error)

    def write(self, split: str, record: dict[str, Any], picture: Picture | None) -> None:
        """Writes a record, and keeps what the last step needs to know of it."""
        part = self._part
        if split not in self._writers:
            named = records_file(self._plan.parts_folder, self._number, split)
            path = self._unpublished.enter_context(whole(named))
            self._paths[split] = path
            self._writers[split] = ArrayRecordWriter(str(path), "group_size:1")
        encoded = self._encoder.encode(record)
        self._writers[split].write(encoded)
        keys = keys_of(record)
        if "captions" in record:
            # A caption that occurs twice is held out twice.
            keys[TEXTS] = list(map(text_key, record["captions"]))
        if self._plan.request.official and "group" in record:
            keys[GROUPS] = [group_key(record["group"])]
        number = part.counts.get(split, 0)
        self._arrays.add(split, number, record_digest(record), group_key(record["id"]), keys)
        if picture and self._plan.request.looks:
            self._arrays.add_look(split, picture.look)
        if len(part.examples) < EXAMPLES:
            part.examples.append(_example(record, picture))
        part.counts[split] = number + 1
        part.bytes[split] = part.bytes.get(split, 0) + len(encoded)

    def publish(self) -> None:
        """Ends the files and gives them their names."""
        for split, writer in self._writers.items():
            writer.close()
            self._part.sha256[split] = sha256_of(self._paths[split])
        self._unpublished.close()
        with whole(arrays_file(self._plan.parts_folder, self._number)) as path:
            self._arrays.save(path)
