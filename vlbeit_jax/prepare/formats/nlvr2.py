"""NLVR2 as it is published: JSON lines, and a folder of pictures for each split (Suhr et al. 2019).

The folder is the one that BEiT-3's guide asks for:

    images/train/DIRECTORY/train-SET-PAIR-img0.png
    dev/dev-SET-PAIR-img0.png
    test1/test1-SET-PAIR-img0.png
    nlvr/nlvr2/data/train.json, dev.json, test1.json

The JSON files may also be at the top, and all pictures of a split in images/SPLIT. A statement is
about two pictures, img0 on the left and img1 on the right. All records of one SET are one group:
they share pictures.
"""

import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from vlbeit_jax.data.identity import TEST, TRAIN, VALIDATION, picture_digest
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.formats.base import Found, Options, Plan, Unit, a_unit_each
from vlbeit_jax.prepare.formats.official import splits_of
from vlbeit_jax.prepare.item import Item, filled_lines
from vlbeit_jax.types import Kind

# Ours by their names; the test set first, because what a later split shares is left out of it.
KINDS = frozenset({Kind.STATEMENTS})
SPLITS = {"test1": TEST, "dev": VALIDATION, "train": TRAIN}
DATA = ("", "nlvr/nlvr2/data", "nlvr2/data", "data")  # Where the JSON files may be.
TRUTHS = {"True": True, "False": False}
LABELS = ("sentence", "label", "identifier")
ELSEWHERE = "picture_of_another_split"


class _Fault(Exception):
    """What is wrong with a line."""


class _Row(NamedTuple):
    """A line: its statement, whether it is true, its set, and the names of its pictures."""

    text: str
    truth: bool
    group: str
    pictures: tuple[str, str]


def sniff(found: Found) -> bool:
    """Returns whether a folder has the JSON file and the pictures of the validation split."""
    files = any(name.rpartition("/")[2] == "dev.json" for name in found.names)
    return files and any(name.endswith("-img0.png") for name in found.names)


def plan(paths: Sequence[pathlib.Path], options: Options) -> Plan:
    """Plans one unit for all folders, because later splits depend on earlier ones."""
    folders = [str(path) for path in paths]
    files = [file for _, _, file in _files(folders, splits_of(options))]
    first = a_unit_each(paths)[0]
    return Plan(
        [Unit(first.path, first.source, extra={"folders": folders})], items=filled_lines(files)
    )


def read(unit: Unit, options: Options) -> Iterator[Item]:
    """One item a line, of the test set, then of dev, then of train.

    A record of dev or train that has a picture file of an earlier split is dropped and counted. So
    the test set is whole.

    Raises:
      UsageError: one of the JSON files is missing.
    """
    places: dict[str, str] = {}  # The split of each picture file.
    first: dict[str, str] = {}  # Where each identifier is.
    for split, folder, file in _files(unit.extra["folders"], splits_of(options)):
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    item = _item(line, folder, split, f"{file}:{number}", number, places)
                    if item.key in first:
                        fault = f"its identifier is also that of {first[item.key]}"
                        place = f"{file}:{number}"
                        item = Item(item.key, place=place, fault=item.fault or fault)
                    first.setdefault(item.key, f"{file}:{number}")
                    yield item


def _files(
    paths: Sequence[str], splits: Sequence[str]
) -> list[tuple[str, pathlib.Path, pathlib.Path]]:
    """Returns NLVR2's name of each split, the folder and the JSON file."""
    found = []
    for split in (name for name, ours in SPLITS.items() if ours in splits):
        for folder in map(pathlib.Path, paths):
            files = [folder / place / f"{split}.json" for place in DATA]
            here = [file for file in files if file.is_file()]
            if not here:
                raise UsageError(
                    f"{folder}: there is no {split}.json, neither here nor in nlvr/nlvr2/data; "
                    "give the folder that holds a copy of the repository nlvr and the pictures"
                )
            found.append((split, folder, here[0]))
    return found


def _item(
    line: bytes, folder: pathlib.Path, split: str, place: str, number: int, places: dict[str, str]
) -> Item:
    key = f"{split}/{number:08d}"
    try:
        values = _parsed(line)
        key = values["identifier"]
        row = _row(values, split)
        files = [_find(folder, split, values, name) for name in row.pictures]
        images = tuple(_bytes(file) for file in files)
    except _Fault as error:
        return Item(key, place=place, fault=str(error))
    others = {places.setdefault(picture_digest(image), split) for image in images} - {split}
    return Item(
        key,
        text=row.text,
        images=images,
        truth=row.truth,
        group=row.group,
        split=SPLITS[split],
        source=files[0].relative_to(folder).as_posix(),
        # Nobody can mend what was published, so such a record has no place: it is only counted.
        place="" if others else place,
        fault=ELSEWHERE if others else "",
    )


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except ValueError as error:
        raise _Fault(f"this line is not JSON: {error}") from error
    missing = [name for name in LABELS if not isinstance(values, dict) or name not in values]
    if missing:
        raise _Fault(f"it has no {missing[0]!r}")
    for name in LABELS:
        if not isinstance(values[name], str) or not values[name].strip():
            raise _Fault(f"its {name!r} is {json.dumps(values[name])} and not a string with words")
    return values


def _row(values: dict[str, Any], split: str) -> _Row:
    if values["label"] not in TRUTHS:
        raise _Fault(f"its 'label' is {values['label']!r} and neither 'True' nor 'False'")
    parts = values["identifier"].split("-")
    if len(parts) != 4 or parts[0] != split:
        raise _Fault(f"its 'identifier' is not {split}-SET-PAIR-SENTENCE")
    pair = "-".join(parts[:3])
    names = (f"{pair}-img0.png", f"{pair}-img1.png")
    truth = TRUTHS[values["label"]]
    return _Row(values["sentence"].strip(), truth, "-".join(parts[:2]), names)


def _find(folder: pathlib.Path, split: str, values: dict[str, Any], name: str) -> pathlib.Path:
    """Returns the file of a picture."""
    tried = [folder / split / name, folder / "images" / split / name]
    if "directory" in values:
        directory = str(values["directory"])
        if not directory.isdigit():
            raise _Fault(f"its 'directory' is {directory!r} and not a number")
        tried.insert(0, folder / "images" / split / directory / name)
    for path in tried:
        if path.is_file():
            return path
    raise _Fault(f"its picture {tried[0].relative_to(folder)} is missing")


def _bytes(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _Fault(f"its picture {path.name} cannot be read: {error.strerror}") from error
