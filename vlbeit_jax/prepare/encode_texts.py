"""Texts to word pieces, in several processes; what is finished stays if the command is stopped.

A part is a range of a set's documents. Its file in ``OUT.packing`` appears whole, and its name has
the hash of what decides its content. So a command that is run again takes the files that fit, and
no others.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from vlbeit_jax.copies import on_disk
from vlbeit_jax.data.source import PreparedSet, open_set
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.prepare import pool
from vlbeit_jax.prepare.parts import remove_unfinished, whole
from vlbeit_jax.progress import meter, say

DOCUMENTS = 20_000  # Of a part, about 60 MB of Wikipedia.
VERSION = 1


@dataclasses.dataclass(frozen=True)
class Range:
    """Documents of a split of a set, from ``start`` up to, but not including, ``stop``."""

    place: str
    fingerprint: str
    split: str
    start: int
    stop: int

    def file(self, folder: pathlib.Path, tokenizer: str) -> pathlib.Path:
        """Returns where its pieces are; ``tokenizer`` is the fingerprint of one."""
        asked = [VERSION, self.fingerprint, self.split, self.start, self.stop, tokenizer]
        digest = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
        return folder / f"{digest[:24]}.npz"


def ranges_of(sets: Sequence[PreparedSet], places: Sequence[str], split: str) -> list[Range]:
    """Divides the documents of a split, in their order."""
    return [
        Range(
            place, prepared.fingerprint, split, start, min(start + DOCUMENTS, prepared.count(split))
        )
        for place, prepared in zip(places, sets, strict=True)
        for start in range(0, prepared.count(split), DOCUMENTS)
    ]


def encode(
    folder: pathlib.Path, ranges: Sequence[Range], tokenizer: TextTokenizer, workers: int
) -> None:
    """Writes the pieces of the ranges that are not there.

    Args:
      folder: for the files.
      ranges: of documents.
      tokenizer: that cuts texts.
      workers: processes; negative: one for each core.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_unfinished(folder)
    todo = [each for each in ranges if not each.file(folder, tokenizer.fingerprint).is_file()]
    if len(todo) < len(ranges):
        say(f"{len(ranges) - len(todo)} of {len(ranges)} parts are finished already")
    total = sum(each.stop - each.start for each in todo)
    call = _Encode(folder, str(tokenizer.folder))
    with meter("encoding", "texts", total) as shown:

        def report(items: int, dropped: object, reading: str = "") -> None:
            shown.update(items)

        for _, result in pool.run(call, todo, pool.processes(workers, len(todo)), report):
            if isinstance(result, Exception):
                raise result


def documents_of(file: pathlib.Path) -> Iterator[list[int]]:
    """Yields the pieces of each document of a range."""
    with on_disk(file) as path, np.load(path) as arrays:
        pieces, ends = arrays["pieces"], arrays["ends"]
    start = 0
    for end in ends.tolist():
        yield pieces[start:end].tolist()
        start = end


@dataclasses.dataclass(frozen=True)
class _Encode:
    """The call that writes the file of a range."""

    folder: pathlib.Path
    tokenizer: str

    def __call__(self, given: Range, report: pool.Report) -> None:
        tokenizer, prepared = _tokenizer(self.tokenizer), _set(given.place)
        records = prepared.records(given.split)
        pieces: list[np.ndarray] = []
        for number in range(given.start, given.stop):
            text = records[number]["text"].decode()
            pieces.append(np.array(tokenizer.encode(text), np.int32))
            if number % 1000 == 999:
                report(1000, {})
        ends = np.cumsum([len(each) for each in pieces], dtype=np.int64)
        with whole(given.file(self.folder, tokenizer.fingerprint)) as path, path.open("wb") as file:
            np.savez(file, pieces=np.concatenate([*pieces, np.zeros(0, np.int32)]), ends=ends)


@functools.lru_cache(maxsize=1)
def _tokenizer(folder: str) -> TextTokenizer:
    return TextTokenizer(folder)


@functools.lru_cache(maxsize=4)
def _set(place: str) -> PreparedSet:
    return open_set(place)
