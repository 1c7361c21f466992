"""Divides the records of a finished set over its files, before any of them is written."""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np

from vlbeit_jax.prepare.merge import Edits, Merged

SHARD_BYTES = 256e6  # Few files, and each is quickly read from anywhere.
SMALLEST_OF_PARTS = 64e6  # Parts of this size, on average, become shards as they are.


@dataclasses.dataclass(frozen=True)
class Piece:
    """Some records of a part: their numbers in it, rising."""

    part: int
    numbers: np.ndarray


@dataclasses.dataclass(frozen=True)
class Change:
    """How a record is written anew (``merge.Edits``).

    Attributes:
      joined: part and number of the removed records whose captions it gets.
      filtered: whether it loses the captions that training has.
      renamed: what is added to its id.
    """

    joined: tuple[tuple[int, int], ...] = ()
    filtered: bool = False
    renamed: str = ""


@dataclasses.dataclass(frozen=True)
class Shard:
    """A file to make.

    Attributes:
      split: of its records.
      path: of the file.
      pieces: its records, in order.
      as_it_is: whether the file of its only part becomes the shard, unchanged.
      changes: of its records, by part and number.
    """

    split: str
    path: pathlib.Path
    pieces: tuple[Piece, ...]
    as_it_is: bool
    changes: Mapping[tuple[int, int], Change]

    def count(self) -> int:
        """Returns the number of records."""
        return sum(len(piece.numbers) for piece in self.pieces)


def divide(
    merged: Merged, split: str, edits: Edits, asked: int, path: pathlib.Path, name: str
) -> list[Shard]:
    """Divides the records of a split over files, in their order.

    Args:
      merged: all parts.
      split: with at least one record left.
      edits: of the split.
      asked: number of files; 0: as many as give files of about ``SHARD_BYTES``.
      path: folder of the files.
      name: of the set, with which names of files begin.
    """
    kept = np.flatnonzero(edits.kept)
    sizes = [part.bytes.get(split, 0) for part in merged.parts]
    filled = [number for number, part in enumerate(merged.parts) if part.counts.get(split)]
    large = len(filled) > 1 and sum(sizes) / len(filled) >= SMALLEST_OF_PARTS
    if asked == len(filled) or (not asked and large):
        # A file for each part. If none of its records is removed or changed, it need not be copied.
        ends = [merged.range_of(split, number)[1] for number in filled]
        cuts = [0, *np.searchsorted(kept, ends).tolist()]
    else:
        number = asked or max(1, round(sum(sizes) / SHARD_BYTES))
        cuts = [len(kept) * place // number for place in range(number + 1)]
    count = len(cuts) - 1
    files = [
        path / f"{name}-{split}.array_record-{place:05d}-of-{count:05d}" for place in range(count)
    ]
    changes: dict[int, dict[int, Change]] = {}
    for (part, number), change in _changes(merged, split, edits):
        changes.setdefault(part, {})[number] = change
    return [
        _shard(merged, split, file, kept[start:stop], changes)
        for file, (start, stop) in zip(files, itertools.pairwise(cuts), strict=True)
    ]


def _shard(
    merged: Merged,
    split: str,
    file: pathlib.Path,
    numbers: np.ndarray,
    changes: Mapping[int, Mapping[int, Change]],
) -> Shard:
    """Returns the file of some records.

    Args:
      merged: all parts.
      split: of the records.
      file: its path.
      numbers: of the records within the split, rising.
      changes: by part and number within the part.
    """
    pieces, has_all = [], False
    if len(numbers):
        first, last = (merged.place(split, int(each))[0] for each in (numbers[0], numbers[-1]))
        for part in range(first, last + 1):
            start, stop = merged.range_of(split, part)
            begin, end = np.searchsorted(numbers, [start, stop]).tolist()
            if begin < end:
                pieces.append(Piece(part, numbers[begin:end] - start))
                has_all = end - begin == stop - start
    own = {
        (piece.part, number): change
        for piece in pieces
        for number, change in changes.get(piece.part, {}).items()
    }
    as_it_is = len(pieces) == 1 and has_all and not own
    return Shard(split, file, tuple(pieces), as_it_is, own)


def _changes(merged: Merged, split: str, edits: Edits) -> Iterator[tuple[tuple[int, int], Change]]:
    for number in sorted(edits.changed):
        if edits.kept[number]:
            yield (
                merged.place(split, number),
                Change(
                    tuple(merged.place(split, each) for each in edits.joined.get(number, ())),
                    number in edits.filtered,
                    edits.renamed.get(number, ""),
                ),
            )
