"""Records by number, and views that choose, concatenate or pad them."""

import bisect
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np


@runtime_checkable
class Records(Protocol):
    """Random access to records: TFDS data sources, lists, and the classes below."""

    def __len__(self) -> int:
        """Returns the number of records."""
        ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        """Returns one record."""
        ...


class ConcatRecords:
    """The records of several parts, one part after the other."""

    def __init__(self, parts: Sequence[Records]):
        self._parts = list(parts)
        self._ends = list(itertools.accumulate(len(part) for part in self._parts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        # bisect_right skips parts without records: their end equals the one before.
        part = bisect.bisect_right(self._ends, index)
        return self._parts[part][index - (self._ends[part] - len(self._parts[part]))]


class EvenRecords:
    """At most ``count`` of some records, evenly spaced, with the first and the last."""

    def __init__(self, records: Records, count: int):
        self._records, chosen = records, min(count, len(records))
        self._places = np.linspace(0, len(records) - 1, chosen).astype(int)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        return self._records[int(self._places[index])]


class PadRecords:
    """Records several times over, padded to whole batches; each record gets a ``weight`` of 1 or 0.

    Padding repeats the first record with weight 0, so that it changes no sum over rows.
    """

    def __init__(self, records: Records, batch_size: int, repeats: int = 1):
        """Takes the records, how many make a batch, and how often each one appears."""
        self._records = records
        self._real = len(records) * repeats
        self._padded = -(-self._real // batch_size) * batch_size

    def __len__(self) -> int:
        return self._padded

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        if not 0 <= index < self._padded:
            raise IndexError(index)
        real = index < self._real
        return {**self._records[index % len(self._records) if real else 0], "weight": float(real)}
