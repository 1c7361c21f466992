"""Names of classes: those of a file, or those that the records state."""

import collections
from collections.abc import Mapping
from typing import Any

from vlbeit_jax.data.class_names import read_class_names
from vlbeit_jax.errors import UsageError
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

    def count(self, split: str, name: str) -> None:
        """Counts a record."""
        self._counts.setdefault(split, collections.Counter())[name] += 1

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the file; empty if the records state them."""
        return self._names

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Records by split and class."""
        return {split: dict(found) for split, found in self._counts.items()}

    def include(self, counts: Mapping[str, Mapping[str, int]]) -> None:
        """Adds the counts of another part of the set."""
        for split, found in counts.items():
            self._counts.setdefault(split, collections.Counter()).update(found)

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
