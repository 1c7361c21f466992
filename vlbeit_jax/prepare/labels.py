"""Names of classes: those of a file, or those that the records state."""

import collections
from collections.abc import Mapping
from typing import Any

import numpy as np

from vlbeit_jax.data.class_names import read_class_names
from vlbeit_jax.data.masks import stored_mask
from vlbeit_jax.errors import UsageError
from vlbeit_jax.metrics.segmentation import IGNORED
from vlbeit_jax.prepare.check import Dropped


class Classes:
    """The classes of a set, and how many records each split has of them."""

    def __init__(self, names: tuple[str, ...] = (), file: str = ""):
        """Takes the names in the order of a head's outputs; none: the records state them."""
        self._names, self._file = names, file
        self._counts: dict[str, collections.Counter[str]] = {}

    @classmethod
    def read(cls, path: str) -> "Classes":
        """Reads the names of a file: one a line, or a JSON list.

        Raises:
          UsageError: as ``read_class_names``.
        """
        return cls(read_class_names(path), path)

    def name(self, label: str | int) -> str:
        """Returns the name of a label.

        Raises:
          Dropped: the label is none of the classes; the reason is a sentence.
        """
        if isinstance(label, int):
            if not self._names:
                raise Dropped(
                    f"its label {label} is a number; give --classes=FILE with the names of the "
                    "classes, or state the name"
                )
            if not 0 <= label < len(self._names):
                raise Dropped(
                    f"its label {label} is out of range: {self._file} names {len(self._names)} "
                    f"classes, 0 to {len(self._names) - 1}"
                )
            return self._names[label]
        if self._names and label not in self._names:
            raise Dropped(f"its label {label!r} is not among the classes of {self._file}")
        return label

    def count(self, split: str, name: str, times: int = 1) -> None:
        """Counts a record; times=-1: counts it no longer."""
        self._counts.setdefault(split, collections.Counter())[name] += times

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the file; empty if the records state them."""
        return self._names

    @property
    def file(self) -> str:
        """The file that the names were read from."""
        return self._file

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Records by split and class."""
        return {split: dict(counter) for split, counter in self._counts.items()}

    def include(self, counts: Mapping[str, Mapping[str, int]]) -> None:
        """Adds the counts of another part of the set."""
        for split, counter in counts.items():
            self._counts.setdefault(split, collections.Counter()).update(counter)

    def count_pixels(self, split: str, pixels: Mapping[int, int], times: int = 1) -> None:
        """Counts the pixels of a mask, of ``pixels_of``; times=-1: counts them no longer."""
        counts = self._counts.setdefault(split, collections.Counter())
        counts.update({str(index): times * count for index, count in pixels.items()})

    def pixels_of(self, mask: bytes) -> dict[int, int]:
        """Returns how many pixels of each class a mask has, as ``data.masks.mask_bytes`` made it.

        Raises:
          Dropped: it has a number that is no class; the reason is a sentence.
        """
        pixels = np.bincount(stored_mask(mask).ravel(), minlength=IGNORED + 1)[:IGNORED]
        present = np.flatnonzero(pixels)
        if self._names and present.size and present[-1] >= len(self._names):
            raise Dropped(
                f"its mask has {pixels[present[-1]]} pixels of class {present[-1]}, but "
                f"{self._file} names {len(self._names)} classes, 0 to {len(self._names) - 1}; "
                f"{IGNORED} is for pixels that do not count"
            )
        return {int(index): int(pixels[index]) for index in present}

    def description_of_masks(self) -> dict[str, Any]:
        """Returns the names in order, and how many pixels each has by split.

        Without a list of names, classes are called by their numbers, up to the largest one.

        Raises:
          UsageError: there are fewer than two classes.
        """
        largest = max(
            (int(each) for counter in self._counts.values() for each in counter), default=-1
        )
        names = self._names or tuple(map(str, range(largest + 1)))
        if len(names) < 2:
            raise UsageError(
                f"the masks have {len(names)} classes, but at least two are needed; a background "
                "is a class too"
            )
        counts = {
            split: {
                names[int(each)]: counter[each]
                for each in sorted(counter, key=int)
                if counter[each]
            }
            for split, counter in sorted(self._counts.items())
        }
        return {"classes": list(names), "class_counts": counts}

    def description(self) -> dict[str, Any]:
        """Returns the names in order, and how many records each has by split.

        Raises:
          UsageError: the records are all of one class.
        """
        names = list(self._names) or sorted(set().union(*self._counts.values()))
        if len(names) == 1:
            raise UsageError(
                f"all records are of the class {names[0]!r}; if there are others, name them all in "
                "the file of --classes"
            )
        return {
            "classes": names,
            "class_counts": {
                split: {name: counts[name] for name in names if counts[name]}
                for split, counts in sorted(self._counts.items())
            },
        }
