"""All parts side by side: what is removed, joined or renamed before the set is written.

Whether a record stays can depend on any other record: a held-out caption that training has is
left out, and so are duplicates if that is asked for. The keys in the parts' arrays are enough to
decide this, so no record has to be read.
"""

import collections
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from vlbeit_jax.data.identity import PICTURES, SPLITS, TEXTS, TRAIN
from vlbeit_jax.data.keys import Keys
from vlbeit_jax.prepare.parts import DIGESTS, IDS, LOOKS, Part, arrays_file
from vlbeit_jax.shapes import Bool, Int, UInt

Pairs = tuple[UInt[np.ndarray, " _"], Int[np.ndarray, " _"]]  # Keys, and numbers of records.


class Merged:
    """The arrays of all parts; a record has one number within its split."""

    def __init__(self, folder: pathlib.Path, parts: Sequence[Part]):
        """Takes the folder of the parts and their counts."""
        self._folder, self.parts = folder, parts
        self.splits = [split for split in SPLITS if any(part.counts.get(split) for part in parts)]
        self._starts = {
            split: np.cumsum([0, *(part.counts.get(split, 0) for part in parts)])
            for split in self.splits
        }

    def count(self, split: str) -> int:
        """Returns the records of a split."""
        return int(self._starts[split][-1])

    def range_of(self, split: str, part: int) -> tuple[int, int]:
        """Returns the number of a part's first record, and of the one after its last."""
        start, stop = self._starts[split][part : part + 2]
        return int(start), int(stop)

    def place(self, split: str, number: int) -> tuple[int, int]:
        """Returns the part of a record, and its number within the part."""
        part = int(np.searchsorted(self._starts[split], number, "right")) - 1
        return part, number - int(self._starts[split][part])

    def number(self, split: str, part: int, place: int) -> int:
        """Returns the number of a part's record; see ``place``."""
        return int(self._starts[split][part]) + place

    def keys(self, what: str, split: str) -> Pairs:
        """Returns the keys of pictures, texts or groups, in the order of their records."""
        columns = [np.zeros((0, 2), np.uint64)]
        for part, values in self._arrays(what, split):
            # Columns: a key, and the number of its record within the part, which becomes the number
            # within the split.
            offset = np.array([0, self._starts[split][part]], np.uint64)
            columns.append(values + offset)
        both = np.concatenate(columns)
        return both[:, 0].copy(), both[:, 1].astype(np.int64)

    def looks(self, split: str) -> UInt[np.ndarray, "_ 2"]:
        """Returns what the pictures look like, in the order of their records."""
        looks = (values for _, values in self._arrays(LOOKS, split))
        return np.concatenate([np.zeros((0, 2), np.uint64), *looks])

    def digests(self, split: str) -> Iterator[tuple[int, bytes]]:
        """Yields the number and the digest of each record."""
        for number, values in self._arrays(DIGESTS, split):
            for place, digest in enumerate(values, int(self._starts[split][number])):
                yield place, digest.tobytes()

    def repeated_ids(self) -> dict[str, dict[int, str]]:
        """Returns, by split and number, the suffix of each id that a record of an earlier part has.

        Ids are already different within a part.
        """
        ids, numbers, splits = [], [], []
        for index, split in enumerate(self.splits):
            ids += [values for _, values in self._arrays(IDS, split)]
            numbers += [np.arange(self.count(split))]
            splits += [np.full(self.count(split), index)]
        if not ids:
            return {}
        return self._suffixes(np.concatenate(ids), np.concatenate(numbers), np.concatenate(splits))

    def _suffixes(
        self,
        ids: UInt[np.ndarray, " n"],
        numbers: Int[np.ndarray, " n"],
        splits: Int[np.ndarray, " n"],
    ) -> dict[str, dict[int, str]]:
        """Does the same from the id, the number and the index of the split of every record."""
        values, counts = np.unique(ids, return_counts=True)
        # By id, the part, split and number of all its records. Only ids that occur twice get there:
        # a dictionary of all would take gigabytes for millions of records.
        holders: dict[int, list[tuple[int, str, int]]] = collections.defaultdict(list)
        for index in np.flatnonzero(np.isin(ids, values[counts > 1])):
            split, number = self.splits[splits[index]], int(numbers[index])
            holders[int(ids[index])].append((self.place(split, number)[0], split, number))
        suffixes: dict[str, dict[int, str]] = {}
        for records in holders.values():
            # The record of the first part keeps the id.
            for part, split, number in sorted(records)[1:]:
                suffixes.setdefault(split, {})[number] = f"##{part}"
        return suffixes

    def _arrays(self, what: str, split: str) -> Iterator[tuple[int, np.ndarray]]:
        for number, part in enumerate(self.parts):
            if part.counts.get(split):
                with np.load(arrays_file(self._folder, number)) as arrays:
                    name = f"{what}-{split}"
                    if name in arrays:
                        yield number, arrays[name]


@dataclasses.dataclass
class Edits:
    """What becomes of the records of a split.

    Attributes:
      kept: whether a record stays, by number.
      joined: numbers of the removed records whose captions a record gets, in order.
      filtered: numbers of records that lose the captions of training.
      renamed: what is added to ids.
    """

    kept: Bool[np.ndarray, " n"]
    joined: dict[int, list[int]] = dataclasses.field(default_factory=dict)
    filtered: set[int] = dataclasses.field(default_factory=set)
    renamed: dict[int, str] = dataclasses.field(default_factory=dict)

    @property
    def changed(self) -> set[int]:
        """Numbers of the records that are written anew."""
        return {*self.joined, *self.filtered, *self.renamed}


def no_edits(merged: Merged) -> dict[str, Edits]:
    """Returns edits by split that change nothing."""
    return {split: Edits(np.ones(merged.count(split), bool)) for split in merged.splits}


def texts_of(merged: Merged, split: str, edits: Edits) -> Pairs:
    """Returns keys of the texts that a split has after its edits, in the order of the records.

    Texts that training has are still among those of held-out records.
    """
    keys, numbers = merged.keys(TEXTS, split)
    # By record, the record that its texts are in at last: itself, or the one that gets the captions
    # of a removed one; -1 if they are in none.
    owner = np.where(edits.kept, np.arange(len(edits.kept)), -1)
    for first, others in edits.joined.items():
        owner[others] = first if edits.kept[first] else -1
    numbers = owner[numbers]
    order = np.argsort(numbers, kind="stable")
    order = order[numbers[order] >= 0]
    return keys[order], numbers[order]


def leave_out_captions(merged: Merged, edits: dict[str, Edits]) -> int:
    """Removes captions of training from held-out pairs; returns how many pairs have none left."""
    if TRAIN not in edits:
        return 0
    known, gone = np.unique(texts_of(merged, TRAIN, edits[TRAIN])[0]), 0
    for split, edit in edits.items():
        if split == TRAIN:
            continue
        keys, numbers = texts_of(merged, split, edit)
        is_known = np.isin(keys, known)
        affected = np.unique(numbers[is_known])
        emptied = np.setdiff1d(affected, np.unique(numbers[~is_known]))
        edit.kept[emptied] = False
        edit.filtered |= set(np.setdiff1d(affected, emptied).tolist())
        gone += len(emptied)
    return gone


def captions_repeated(merged: Merged, edits: dict[str, Edits]) -> dict[str, int]:
    """Returns how many held-out captions training has too, by split.

    A benchmark keeps them, because recall depends on the number of candidates.
    """
    known = texts_of(merged, TRAIN, edits[TRAIN])[0] if TRAIN in edits else np.zeros(0, np.uint64)
    return {
        split: int(np.isin(texts_of(merged, split, edit)[0], known).sum())
        for split, edit in edits.items()
        if split != TRAIN
    }


def final_keys(
    merged: Merged, edits: dict[str, Edits], *, of_benchmark: bool, pairs: bool
) -> dict[tuple[str, str], Keys]:
    """Returns, by kind of key and split, each key once with the first record that has it.

    Args:
      merged: all parts.
      edits: by split.
      of_benchmark: whether captions of held-out pairs have no keys: a short one such as "a man
        riding a wave" is in every part of COCO.
      pairs: whether the records are pairs.
    """
    final: dict[tuple[str, str], Keys] = {}
    train = texts_of(merged, TRAIN, edits[TRAIN])[0] if TRAIN in edits else np.zeros(0, np.uint64)
    for split, edit in edits.items():
        new_number = np.cumsum(edit.kept) - 1  # Of each record that stays, in the finished set.
        keys, numbers = merged.keys(PICTURES, split)
        stay = edit.kept[numbers]
        final[PICTURES, split] = _first(keys[stay], new_number[numbers[stay]])
        if of_benchmark and pairs and split != TRAIN:
            continue
        keys, numbers = texts_of(merged, split, edit)
        if pairs and split != TRAIN:
            stay = ~np.isin(keys, train)
            keys, numbers = keys[stay], numbers[stay]
        final[TEXTS, split] = _first(keys, new_number[numbers])
    return {place: keys for place, keys in final.items() if keys.size}


def _first(keys: UInt[np.ndarray, " n"], numbers: Int[np.ndarray, " n"]) -> Keys:
    """Returns each key once, sorted, with the first number that it has."""
    unique, first = np.unique(keys, return_index=True)
    return np.stack([unique, numbers[first].astype(np.uint64)])
