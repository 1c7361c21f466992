"""Fingerprints of the records of a prepared set.

They hash the decoded fields in order, not the files.

Another release of ArrayRecord or protobuf, or another number of shards, changes the files. It
changes neither the fingerprint nor the order of training, which depends on the fingerprint.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from vlbeit_jax.data.draws import framed

DIGITS = 12


class ContentFingerprint:
    """Hashes records one by one, in the order of their split."""

    def __init__(self, kind: str):
        """Starts a fingerprint of records of a kind, which is part of it."""
        self._kind = kind
        self._splits: dict[str, Any] = {}
        self._counts: dict[str, int] = {}

    def add(self, split: str, record: Mapping[str, Any]) -> None:
        """Adds the next record of a split."""
        self.add_digest(split, record_digest(record))

    def add_digest(self, split: str, digest: bytes) -> None:
        """Adds the next record of a split by its ``record_digest``."""
        self._splits.setdefault(split, hashlib.sha256()).update(digest)
        self._counts[split] = self._counts.get(split, 0) + 1

    def hexdigest(self) -> str:
        """Returns twelve hexadecimal digits of the hash of kind, splits and all records."""
        parts: list[str | int | bytes] = [self._kind]
        for split in sorted(self._splits):
            parts += [split, self._counts[split], self._splits[split].digest()]
        return hashlib.sha256(framed(*parts)).hexdigest()[:DIGITS]


def record_digest(record: Mapping[str, Any]) -> bytes:
    """Returns the SHA-256 of names and values; strings are hashed as UTF-8, integers as int64.

    Raises:
      TypeError: a value has a type that records do not have.
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
    if isinstance(value, bool | np.bool_):
        return [int(value)]
    if isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.integer):
        return [value.ndim, *value.shape, np.ascontiguousarray(value, "<i8").tobytes()]
    if isinstance(value, np.ndarray | list | tuple):
        items = [_value(each) for each in value]
        return [len(items), *(part for item in items for part in item)]
    raise TypeError(
        f"cannot take the fingerprint of a record's value of type {type(value).__name__}"
    )


def fingerprint_of(kind: str, splits: Mapping[str, Iterable[Mapping[str, Any]]]) -> str:
    """Returns the fingerprint of records by split."""
    fingerprint = ContentFingerprint(kind)
    for split, records in splits.items():
        for record in records:
            fingerprint.add(split, record)
    return fingerprint.hexdigest()
