"""ImageNet-1K: ``train/WNID/*.JPEG`` and ``val/``, with or without folders of classes.

Where the pictures of ``val/`` are in no folders, one of these says what is in them:
``LOC_val_solution.csv`` of Kaggle, beside ``train`` and ``val``; or ``ILSVRC2012_devkit_t12/data/``
of the development kit of 2012. The kit numbers classes in an order of its own, which its
``meta.mat`` explains.

A class is called by its WordNet ID. Sorted, they are in the order of all published models. With
``LOC_synset_mapping.txt`` or ``synset_words.txt`` in the folder, the name of a class is its line:
"n01440764 tench, Tinca tinca". Names alone would not do, because two classes are called "crane".
"""

import csv
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence

from vlbeit_jax.data.identity import TRAIN, VALIDATION
from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import input_path
from vlbeit_jax.prepare.formats.base import UNIT_PICTURES, Found, Options, Plan, Unit
from vlbeit_jax.prepare.formats.official import (
    Pictures,
    divided,
    only_one,
    ranges,
    required,
    splits_of,
)
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.types import Kind

KINDS = frozenset({Kind.IMAGES, Kind.LABELLED_IMAGES})
FOLDERS = {VALIDATION: "val", TRAIN: "train"}
WNID = re.compile(r"train/n\d{8}/")
NAMES = ("LOC_synset_mapping.txt", "synset_words.txt")
SOLUTION = "LOC_val_solution.csv"
KIT = "ILSVRC2012_devkit_t12/data"
TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"


def sniff(found: Found) -> bool:
    """Returns whether a folder has folders of WordNet IDs below ``train``."""
    return any(WNID.match(name) for name in found.names)


def plan(paths: Sequence[pathlib.Path], options: Options) -> Plan:
    """Divides the pictures of ``val`` and of ``train``, sorted by path, between classes.

    Raises:
      UsageError: a folder or a list of classes is missing, or does not fit the others.
    """
    folder = only_one(paths, "imagenet")
    splits = splits_of(options)
    both = {TRAIN, VALIDATION} <= set(splits)
    known = set(_classes(_top(folder, TRAIN))) if both else None

    def units(whole: Unit, split: str) -> list[Unit]:
        top = _top(folder, split)
        classes = _classes(top)
        if not classes:
            pictures = _flat(folder, top)
            held = {wnid for _, wnid in pictures}
        else:
            pictures, held = [], set(classes)
        if known is not None and (strange := held - known):
            raise UsageError(f"{top}: there are pictures of {min(strange)}, which train/ lacks")
        if not classes:
            return ranges(whole, len(pictures), split=split)
        return _units(whole, top, classes, split)

    return divided(folder, options, FOLDERS, units)


def _units(whole: Unit, top: pathlib.Path, classes: Sequence[str], split: str) -> list[Unit]:
    """Divides the pictures between folders of classes, so that a worker lists few of them."""
    units: list[Unit] = []
    start, stop, names = 0, 0, []
    for wnid in classes:
        names.append(wnid)
        stop += len(_in_folders(top, [wnid]))
        if stop - start >= UNIT_PICTURES or wnid == classes[-1]:
            extra = {"split": split, "classes": names}
            units.append(Unit(whole.path, whole.source, start, stop, extra))
            start, names = stop, []
    return units


def read(unit: Unit, options: Options) -> Iterator[Item]:
    """Yields the pictures of a unit."""
    folder, split = input_path(unit.path), unit.extra["split"]
    top = _top(folder, split)
    if classes := unit.extra.get("classes"):
        pictures = _in_folders(top, classes)
    else:
        pictures = _flat(folder, top)[unit.start : unit.stop]
    yield from _items(folder, pictures, split, _names(folder))


def _top(folder: pathlib.Path, split: str) -> pathlib.Path:
    what = "training" if split == TRAIN else split
    return required(folder, f"{FOLDERS[split]}/", f"the {what} pictures of ImageNet")


def _items(
    folder: pathlib.Path, listed: Sequence[tuple[str, str]], split: str, names: Mapping[str, str]
) -> Iterator[Item]:
    pictures = Pictures(folder)
    for source, wnid in listed:
        image, fault = pictures.read(source)
        if names and wnid not in names:
            fault = fault or f"its class {wnid} is not in the file of class names"
        yield Item(
            source.rpartition("/")[2].partition(".")[0],
            image,
            label=names.get(wnid, wnid),
            source=source,
            split=split,
            place=f"{folder / source}",
            fault=fault,
        )


def _classes(top: pathlib.Path) -> list[str]:
    return sorted(path.name for path in top.iterdir() if path.is_dir() and path.name[0] != ".")


def _in_folders(top: pathlib.Path, classes: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the path of each picture with its class."""
    listed = []
    for wnid in classes:
        pictures = sorted(path.name for path in (top / wnid).iterdir() if _is_picture(path))
        if not pictures:
            raise UsageError(
                f"{top / wnid}: there is no .JPEG file in it; unpack {wnid}.tar into this folder"
            )
        listed += [(f"{top.name}/{wnid}/{name}", wnid) for name in pictures]
    return listed


def _flat(folder: pathlib.Path, top: pathlib.Path) -> list[tuple[str, str]]:
    """Returns the path of each picture with its class, of a folder without folders."""
    pictures = sorted(path.name for path in top.iterdir() if _is_picture(path))
    if not pictures:
        raise UsageError(f"{top}: there is neither a .JPEG file in it nor a folder of a class")
    if top.name != FOLDERS[VALIDATION]:
        raise UsageError(f"{top}: its pictures are in no folders; train/WNID/*.JPEG is expected")
    classes = _solution(folder) or _ground_truth(folder, pictures)
    if lost := [name for name in pictures if name.partition(".")[0] not in classes]:
        raise UsageError(f"{top / lost[0]}: no file states its class")
    return [(f"{top.name}/{name}", classes[name.partition(".")[0]]) for name in pictures]


def _solution(folder: pathlib.Path) -> dict[str, str]:
    path = folder / SOLUTION
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    if not rows or not {"ImageId", "PredictionString"} <= rows[0].keys():
        raise UsageError(f"{path}: it needs the columns ImageId and PredictionString")
    return {row["ImageId"]: row["PredictionString"].split(" ")[0] for row in rows}


def _ground_truth(folder: pathlib.Path, pictures: Sequence[str]) -> dict[str, str]:
    """Returns the class of each picture by the development kit, whose lines follow the pictures."""
    if not (folder / KIT / TRUTH).is_file():
        raise UsageError(
            f"{folder}: the pictures of val/ are in no folders, and there is neither {SOLUTION} "
            f"nor {KIT}/{TRUTH}, which would say what is in them; put one of these here, or sort "
            "the pictures into folders named by WordNet ID"
        )
    meta = required(folder, f"{KIT}/{META}", "the WordNet ID of each class number of the kit")
    numbers = (folder / KIT / TRUTH).read_text().split()
    if len(numbers) != len(pictures):
        raise UsageError(
            f"{folder / KIT / TRUTH}: it has {len(numbers)} lines, but val/ has {len(pictures)} "
            "pictures; unpack all of them"
        )
    wnids = _wnids(meta)
    if strange := [number for number in numbers if number not in wnids]:
        raise UsageError(f"{folder / KIT / TRUTH}: {meta} knows no class {strange[0]}")
    stems = (name.partition(".")[0] for name in pictures)
    return {stem: wnids[number] for stem, number in zip(stems, numbers, strict=True)}


def _wnids(path: pathlib.Path) -> dict[str, str]:
    """Returns the WordNet ID of each number of the development kit."""
    import scipy.io

    try:
        synsets = scipy.io.loadmat(str(path), squeeze_me=True)["synsets"]
        return {str(int(each["ILSVRC2012_ID"])): str(each["WNID"]) for each in synsets}
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError) as error:
        raise UsageError(f"{path}: cannot be read as the kit's meta.mat ({error!r})") from error


def _names(folder: pathlib.Path) -> dict[str, str]:
    """Returns the line of each WordNet ID in the file of class names, if there is one."""
    for name in NAMES:
        if (folder / name).is_file():
            lines = (folder / name).read_text(encoding="utf-8").splitlines()
            return {line.split()[0]: " ".join(line.split()) for line in lines if line.strip()}
    return {}


def _is_picture(path: pathlib.Path) -> bool:
    return path.suffix.lower() in (".jpeg", ".jpg") and path.is_file()
