"""What a worker leaves of one part of the work: records, arrays about them, and counts.

Each file appears whole, by a rename or an upload, and the counts come last. So a part whose counts
are there is finished, wherever the process was stopped.

  00012-train.array_record      its training records, in the order of the source
  00012-validation.array_record what it holds out; the last step decides which of these stay
  00012.npz                     digests and keys of the records
  00012.json                    counts, and the hash of what was asked for
"""

import array
import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import socket
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from vlbeit_jax.copies import contents, staged
from vlbeit_jax.data.identity import PICTURES, TEXTS

DIGESTS, IDS, LOOKS, GROUPS = "digests", "ids", "looks", "groups"
UNFINISHED = re.compile(r".*\.(?P<host>[^/]+)\.(?P<process>\d+)\.tmp")
Keys = Mapping[str, list[int]]


@dataclasses.dataclass
class Part:
    """Counts of a finished part.

    Attributes:
      asked: hash of what decides its records (``work_plan.WorkPlan.asked``).
      seen: items that were read.
      placed: records by split, before any was left out because of other sets.
      stated: records whose split the source states.
      counts: records by split, as they are in the files.
      bytes: size of the records by split.
      sha256: of the files of records, by split.
      dropped: items by reason.
      first_dropped: by reason, the source of the first of them.
      left_out: records by reason.
      skipped: files and members that are no examples, by reason.
      repaired: texts that were mended, by reason.
      repeated_ids: records whose id an earlier one had, and which got another.
      classes: records by split and class.
      answers: the two counts of ``data.answers.AnswerCounter``, by their name.
      examples: the first records, for the user to look at.
      bad_inputs: files that could not be read, each with the reason.
    """

    asked: str
    seen: int = 0
    placed: dict[str, int] = dataclasses.field(default_factory=dict)
    stated: int = 0
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    bytes: dict[str, int] = dataclasses.field(default_factory=dict)
    sha256: dict[str, str] = dataclasses.field(default_factory=dict)
    dropped: dict[str, int] = dataclasses.field(default_factory=dict)
    first_dropped: dict[str, str] = dataclasses.field(default_factory=dict)
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)
    skipped: dict[str, int] = dataclasses.field(default_factory=dict)
    repaired: dict[str, int] = dataclasses.field(default_factory=dict)
    repeated_ids: int = 0
    classes: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
    answers: dict[str, dict[str, dict[str, int]]] = dataclasses.field(default_factory=dict)
    examples: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    bad_inputs: list[list[str]] = dataclasses.field(default_factory=list)

    def save(self, folder: pathlib.Path, number: int) -> None:
        """Writes the counts, which makes the part a finished one."""
        with whole(part_file(folder, number)) as path:
            path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")


def read_part(folder: pathlib.Path, number: int) -> Part | None:
    """Returns the counts of a part; None if it is not finished, or another version wrote it."""
    try:
        return _part(part_file(folder, number).read_bytes())
    except FileNotFoundError:
        return None


def read_parts(folder: pathlib.Path) -> dict[int, Part]:
    """Returns the counts of all finished parts by number."""
    files = contents(folder, "*.json")
    parts = {int(pathlib.PurePath(name).stem): _part(text) for name, text in files.items()}
    return {number: part for number, part in sorted(parts.items()) if part}


def _part(text: bytes) -> Part | None:
    try:
        return Part(**json.loads(text))
    except TypeError:
        return None


def part_file(folder: pathlib.Path, number: int) -> pathlib.Path:
    """Returns the path of a part's counts."""
    return folder / f"{number:05d}.json"


def arrays_file(folder: pathlib.Path, number: int) -> pathlib.Path:
    """Returns the path of a part's arrays."""
    return folder / f"{number:05d}.npz"


def records_file(folder: pathlib.Path, number: int, split: str) -> pathlib.Path:
    """Returns the path of a part's records of a split."""
    return folder / f"{number:05d}-{split}.array_record"


def unfinished(path: pathlib.Path) -> pathlib.Path:
    """Returns a temporary name beside ``path`` that no other process uses."""
    return path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")


def publish(written: pathlib.Path, path: pathlib.Path) -> None:
    """Renames a file to ``path`` once it is on the disk."""
    with written.open("rb") as file:
        os.fsync(file.fileno())
    written.replace(path)


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a temporary path; the file that is written there is at ``path`` at the end."""
    with staged(path) as named:
        written = unfinished(named)
        try:
            yield written
            publish(written, named)
        finally:
            written.unlink(missing_ok=True)


def remove_unfinished(folder: pathlib.Path) -> None:
    """Removes temporary files of this machine's processes that have ended."""
    for path in folder.iterdir():
        match = UNFINISHED.fullmatch(path.name)
        if match and match["host"] == socket.gethostname() and not _runs(int(match["process"])):
            path.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def sha256_of(path: pathlib.Path) -> str:
    """Returns the SHA-256 of a file, as ``sha256sum`` prints it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Arrays:
    """Digests and keys of a part's records, while they are written."""

    def __init__(self) -> None:
        self._found: dict[str, array.array] = {}

    def add(self, split: str, number: int, digest: bytes, identity: int, keys: Keys) -> None:
        """Adds record ``number`` of a split.

        Args:
          split: of the record.
          number: of the record within the part's split.
          digest: of the record.
          identity: 64 bits of the hash of its id.
          keys: of its pictures, texts and groups in their order, repeated ones too.
        """
        self._of(DIGESTS, split, "B").frombytes(digest)
        self._of(IDS, split).append(identity)
        for what in (PICTURES, TEXTS, GROUPS):
            for key in keys.get(what, ()):
                self._of(what, split).extend((key, number))

    def add_look(self, split: str, look: tuple[int, int]) -> None:
        """Adds what the next record's picture looks like."""
        self._of(LOOKS, split).extend(look)

    def save(self, path: pathlib.Path) -> None:
        """Writes them to a file, under their names and splits."""
        pairs = dict.fromkeys((PICTURES, TEXTS, GROUPS, LOOKS), (-1, 2))
        shapes = {**pairs, DIGESTS: (-1, 32), IDS: (-1,)}
        arrays: dict[str, Any] = {
            name: np.frombuffer(values, values.typecode.replace("Q", "u8")).reshape(
                shapes[name.partition("-")[0]]
            )
            for name, values in self._found.items()
        }
        with path.open("wb") as file:
            np.savez(file, **arrays)

    def _of(self, what: str, split: str, typecode: str = "Q") -> array.array:
        return self._found.setdefault(f"{what}-{split}", array.array(typecode))
