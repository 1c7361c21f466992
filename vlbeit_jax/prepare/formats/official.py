"""What the formats of published benchmarks share: the files they need, and what is said of a fault.

Their splits stand as they are, because a figure on other splits is not a figure of the benchmark.
``read`` of such a format yields test records first, then validation, then training. So a training
record whose picture is also held back can be left out. That needs one reader for all of them, so a
plan has one unit.
"""

import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vlbeit_jax.data.identity import TEST, TRAIN, VALIDATION
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.formats.base import Options, Plan, a_unit_each

ORDER = (TEST, VALIDATION, TRAIN)
PAGE = "docs/published_benchmarks.md lists what belongs where"


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


def in_one_unit(
    paths: Sequence[pathlib.Path],
    name: str,
    options: Options,
    count: Callable[[pathlib.Path], int],
) -> Plan:
    """Returns the plan of a benchmark.

    Args:
      paths: of its inputs, of which there must be one.
      name: of the format, for the message.
      options: of the command.
      count: from the input to the number of items. It counts all splits, so nothing is counted
        where some are asked for.
    """
    path = only_one(paths, name)
    return Plan(a_unit_each([path]), items=None if options.splits else count(path))


def splits_of(options: Options) -> Sequence[str]:
    """Returns the splits to read, held-back ones first."""
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


def read_list(path: pathlib.Path, key: str) -> list[Mapping[str, Any]]:
    """Reads a JSON file that holds a list of objects under one key.

    Raises:
      UsageError: it cannot be read, or holds something else.
    """
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read as JSON ({error}); get it again") from error
    listed = found.get(key) if isinstance(found, dict) else None
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise UsageError(
            f"{path}: it has no list of objects under {key!r}, so it is another file than its name "
            f"says; {PAGE}"
        )
    return listed


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
