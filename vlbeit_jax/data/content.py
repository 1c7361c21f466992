"""A fingerprint of what a prepared set holds: of decoded fields in order, not of the files they are in.

Another release of ArrayRecord or protobuf, or another number of shards, changes the files and neither the
fingerprint nor the order of training, which follows from it.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from vlbeit_jax.data.draws import framed

DIGITS = 12


class ContentFingerprint:
    """Takes in records one by one, in the order of their split."""

    def __init__(self, kind: str):
        """For records of a kind; equal fields of another kind give another fingerprint."""
        self._kind = kind
        self._splits: dict[str, Any] = {}
        self._counts: dict[str, int] = {}

    def add(self, split: str, record: Mapping[str, Any]) -> None:
        """Takes in the next record of a split."""
        self._splits.setdefault(split, hashlib.sha256()).update(record_digest(record))
        self._counts[split] = self._counts.get(split, 0) + 1

    def hexdigest(self) -> str:
        """Twelve hexadecimal digits over kind, splits and all records."""
        parts: list[str | int | bytes] = [self._kind]
        for split in sorted(self._splits):
            parts += [split, self._counts[split], self._splits[split].digest()]
        return hashlib.sha256(framed(*parts)).hexdigest()[:DIGITS]


def record_digest(record: Mapping[str, Any]) -> bytes:
    """SHA-256 over names and values; strings count as their UTF-8 bytes, whole numbers as int64.

    Raises:
      TypeError: a value is of another type than those that records have.
    """
    parts: list[str | int | bytes] = []
    for name in sorted(record):
        parts += [name, *_value(record[name])]
    return hashlib.sha256(framed(len(record), *parts)).digest()


def _value(value: Any) -> list[str | int | bytes]:
    if isinstance(value, str):
        return [value.encode()]
    if isinstance(value, bytes):
        return [value]
    if isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.integer):
        return [value.ndim, *value.shape, np.ascontiguousarray(value, "<i8").tobytes()]
    if isinstance(value, np.ndarray | list | tuple):
        items = [_value(each) for each in value]
        return [len(items), *(part for item in items for part in item)]
    raise TypeError(f"a record's value of type {type(value).__name__} has no fingerprint")


def fingerprint_of(kind: str, splits: Mapping[str, Iterable[Mapping[str, Any]]]) -> str:
    """The fingerprint of records that are at hand, by split."""
    found = ContentFingerprint(kind)
    for split, records in splits.items():
        for record in records:
            found.add(split, record)
    return found.hexdigest()
