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

from vlbeit_jax.data.identity import TEST, TRAIN, VALIDATION
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.formats.base import Found, Options, Plan, Unit
from vlbeit_jax.prepare.formats.official import divided, ranges
from vlbeit_jax.prepare.item import Item, filled_lines
from vlbeit_jax.storage import raise_of_storage
from vlbeit_jax.types import Kind

KINDS = frozenset({Kind.STATEMENTS})
SPLITS = {"test1": TEST, "dev": VALIDATION, "train": TRAIN}  # Ours, by their names.
NAMES = {ours: name for name, ours in SPLITS.items()}
DATA = ("", "nlvr/nlvr2/data", "nlvr2/data", "data")  # Where the JSON files may be.
TRUTHS = {"True": True, "False": False}
LABELS = ("sentence", "label", "identifier")


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
    """Divides the lines of each split, of all folders.

    Raises:
      UsageError: one of the JSON files is missing.
    """
    folders = [str(path) for path in paths]

    def units(whole: Unit, split: str) -> list[Unit]:
        files = [file for _, file in _files(folders, split)]
        extra = {"split": split, "folders": folders, "paths": [str(file) for file in files]}
        return ranges(whole, filled_lines(files), **extra)

    return divided(paths[0], options, NAMES, units)


def read(unit: Unit, options: Options) -> Iterator[Item]:
    """Yields one item a line of a unit.

    The lines before it are looked at too, because no two may have one identifier.
    """
    split = unit.extra["split"]
    first: dict[str, str] = {}  # Where each identifier is.
    count = 0
    for folder, file in _files(unit.extra["folders"], split):
        with file.open("rb") as lines:
            filled = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
            for number, line in filled:
                place = f"{file}:{number}"
                if unit.start <= count < unit.stop:
                    item = _item(line, folder, NAMES[split], place, number)
                    if item.key in first:
                        fault = f"its identifier is also that of {first[item.key]}"
                        item = Item(item.key, place=place, fault=item.fault or fault)
                    yield item
                first.setdefault(_identifier(line), place)
                count += 1


def _identifier(line: bytes) -> str:
    """Returns the identifier of a line; empty if it has none, which ``_parsed`` says."""
    try:
        return _parsed(line)["identifier"]
    except _Fault:
        return ""


def _files(paths: Sequence[str], split: str) -> list[tuple[pathlib.Path, pathlib.Path]]:
    """Returns each folder, and its JSON file of a split."""
    found = []
    for folder in map(pathlib.Path, paths):
        files = [folder / place / f"{NAMES[split]}.json" for place in DATA]
        here = [file for file in files if file.is_file()]
        if not here:
            raise UsageError(
                f"{folder}: there is no {NAMES[split]}.json, neither here nor in nlvr/nlvr2/data; "
                "give the folder that holds a copy of the repository nlvr and the pictures"
            )
        found.append((folder, here[0]))
    return found


def _item(line: bytes, folder: pathlib.Path, split: str, place: str, number: int) -> Item:
    key = f"{split}/{number:08d}"
    try:
        values = _parsed(line)
        key = values["identifier"]
        row = _row(values, split)
        files = [_find(folder, split, values, name) for name in row.pictures]
        images = tuple(_bytes(file) for file in files)
    except _Fault as error:
        return Item(key, place=place, fault=str(error))
    return Item(
        key,
        text=row.text,
        images=images,
        truth=row.truth,
        group=row.group,
        split=SPLITS[split],
        source=files[0].relative_to(folder).as_posix(),
        place=place,
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
        raise_of_storage(error, path)
        raise _Fault(f"its picture {path.name} cannot be read: {error.strerror}") from error
