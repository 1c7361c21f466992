"""What the formats of published benchmarks share: the files they need, and what is said of a fault.

Their splits stand as they are, because a figure on other splits is not a figure of the benchmark.
A plan has test records first, then validation, then training. What a later split has in common with
an earlier one is left out of the later one, when all parts are written (``prepare/held_apart.py``).
"""

import json
import pathlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from vlbeit_jax.data.identity import TEST, TRAIN, VALIDATION
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.formats.base import UNIT_PICTURES, Options, Plan, Unit, a_unit_each
from vlbeit_jax.prepare.formats.listed import PAGE
from vlbeit_jax.storage import raise_of_storage

ORDER = (TEST, VALIDATION, TRAIN)


def only_one(paths: Sequence[pathlib.Path], name: str) -> pathlib.Path:
    """Returns the one input.

    Raises:
      UsageError: there are several.
    """
    if len(paths) != 1:
        raise UsageError(
            f"--format={name} reads one --input, but there are {len(paths)}: "
            f"{', '.join(map(str, paths))}; prepare one set of each"
        )
    return paths[0]


def divided(
    path: pathlib.Path,
    options: Options,
    splits: Collection[str],
    units: Callable[[Unit, str], Sequence[Unit]],
) -> Plan:
    """Returns the plan of a benchmark.

    Args:
      path: of its only input.
      options: of the command.
      splits: that the benchmark has.
      units: from the whole input and a split to the units of the split, whose ``start`` and
        ``stop`` count items.
    """
    (whole,) = a_unit_each([path])
    found = [
        unit for split in splits_of(options) if split in splits for unit in units(whole, split)
    ]
    return Plan(found, items=sum(unit.stop - unit.start for unit in found))


def ranges(whole: Unit, count: int, **extra: Any) -> list[Unit]:
    """Divides a number of items between units."""
    return [
        Unit(whole.path, whole.source, start, min(start + UNIT_PICTURES, count), extra)
        for start in range(0, count, UNIT_PICTURES)
    ]


def splits_of(options: Options) -> Sequence[str]:
    """Returns the splits to read, held-out ones first."""
    return [split for split in ORDER if split in (options.splits or ORDER)]


def required(folder: pathlib.Path, name: str, holds: str) -> pathlib.Path:
    """Returns the path of a file or folder that must be there.

    Args:
      folder: of the benchmark.
      name: in the folder; a folder's ends with a slash.
      holds: what is in it.

    Raises:
      UsageError: it is missing.
    """
    path = folder / name
    if not (path.is_dir() if name.endswith("/") else path.is_file()):
        raise UsageError(f"{folder}: there is no {name} here, which holds {holds}; {PAGE}")
    return path


class Pictures:
    """Reads pictures. Of those in a row, an equal one is read once."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self._last: tuple[str, bytes] = ("", b"")

    def read(self, name: str) -> tuple[bytes | None, str]:
        """Returns the bytes of a picture; or None, and why it cannot be read."""
        # A file from elsewhere must not copy any other file of this machine into a set. The folders
        # of pictures may be links.
        path = pathlib.PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            return None, f"its image {name} is outside the folder of the benchmark"
        if self._last[0] != name:
            try:
                self._last = (name, (self._folder / name).read_bytes())
            except OSError as error:
                raise_of_storage(error, self._folder / name)
                return None, f"its image {name} cannot be read: {error.strerror}"
        return self._last[1], ""


def missing(record: Mapping[str, Any], types: Mapping[str, type]) -> str:
    """Returns which field of a record is missing or of another type; empty if none is."""
    for name, wanted in types.items():
        if name not in record:
            return f"it has no {name!r}"
        if not isinstance(record[name], wanted) or isinstance(record[name], bool):
            return (
                f"its {name!r} is {json.dumps(record[name])[:80]} and not of type {wanted.__name__}"
            )
    return ""
