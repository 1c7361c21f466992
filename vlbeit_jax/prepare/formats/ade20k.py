"""ADE20K's scene parsing benchmark: 150 classes (Zhou et al. 2017; ADEChallengeData2016).

    images/{training,validation}/NAME.jpg
    annotations/{training,validation}/NAME.png
    objectInfo150.txt

In an annotation, 0 means that a pixel has no class; the classes are 1 to 150. Here 0 becomes 255,
which does not count, and all other numbers become one less. Both happen in one pass, before
anything else. Subtracting alone would turn 0 into 255 only by the overflow of 8 bits, and 255 into
a class.
"""

import collections
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from vlbeit_jax.data.identity import TRAIN, VALIDATION
from vlbeit_jax.data.masks import NotAMask, mask_bytes, read_mask
from vlbeit_jax.errors import UsageError
from vlbeit_jax.metrics.segmentation import IGNORED
from vlbeit_jax.places import input_path
from vlbeit_jax.prepare.formats.base import Found, Options, Plan, Unit
from vlbeit_jax.prepare.formats.official import (
    Pictures,
    divided,
    only_one,
    ranges,
    required,
)
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.shapes import UInt8
from vlbeit_jax.types import Kind

KINDS = frozenset({Kind.MASKS, Kind.IMAGES})
CLASSES = 150
FOLDERS = {VALIDATION: "validation", TRAIN: "training"}
NAMES = "objectInfo150.txt"


def sniff(found: Found) -> bool:
    """Returns whether a folder has training pictures and their annotations."""
    tops = {"/".join(name.split("/")[:2]) for name in found.names}
    return {"images/training", "annotations/training"} <= tops


def plan(paths: Sequence[pathlib.Path], options: Options) -> Plan:
    """Divides the pictures of each split, sorted by name.

    Raises:
      UsageError: a folder is missing, or has no pictures.
    """

    def units(whole: Unit, split: str) -> list[Unit]:
        count = len(_names_in(input_path(whole.path), split))
        return ranges(whole, count, split=split)

    return divided(only_one(paths, "ade20k"), options, FOLDERS, units)


def read(unit: Unit, options: Options) -> Iterator[Item]:
    """Yields the pictures of a unit."""
    folder, split = input_path(unit.path), unit.extra["split"]
    pictures = Pictures(folder)
    for name in _names_in(folder, split)[unit.start : unit.stop]:
        source = f"images/{FOLDERS[split]}/{name}"
        annotation = f"annotations/{FOLDERS[split]}/{pathlib.PurePath(name).stem}.png"
        image, fault = pictures.read(source)
        mask = b""
        if not fault:
            mask, fault = _mask(folder, annotation)
        yield Item(
            pathlib.PurePath(name).stem,
            image,
            mask=mask,
            source=source,
            split=split,
            place=str(folder / annotation),
            fault=fault,
        )


def class_names(paths: Sequence[pathlib.Path]) -> tuple[tuple[str, ...], str]:
    """Returns the names of the classes, and the file that has them; numbers without such a file.

    Raises:
      UsageError: the file has another number of lines.
    """
    path = only_one(paths, "ade20k") / NAMES
    if not path.is_file():
        return tuple(map(str, range(CLASSES))), "ADE20K"
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    names = [line.split("\t")[-1].strip() for line in lines if line.split()[0].isdigit()]
    if len(names) != CLASSES:
        raise UsageError(f"{path}: it names {len(names)} classes, not {CLASSES}; get it again")
    times = collections.Counter(names)
    distinct = (f"{name} ({i})" if times[name] > 1 else name for i, name in enumerate(names))
    return tuple(distinct), str(path)


def without_zero(
    annotation: UInt8[np.ndarray, "height width"],
) -> UInt8[np.ndarray, "height width"]:
    """Returns a mask of classes from 0, and 255 where an annotation has 0 or 255."""
    unlabelled = (annotation == 0) | (annotation == IGNORED)
    return np.where(unlabelled, IGNORED, annotation - 1).astype(np.uint8)


def _mask(folder: pathlib.Path, name: str) -> tuple[bytes, str]:
    """Returns a mask; or none, and why it cannot be read."""
    encoded, fault = Pictures(folder).read(name)
    if encoded is None:
        return b"", fault.replace("its image", "its annotation")
    try:
        return mask_bytes(without_zero(read_mask(encoded))), ""
    except NotAMask as error:
        return b"", f"its annotation {error}"


def _names_in(folder: pathlib.Path, split: str) -> list[str]:
    top = required(folder, f"images/{FOLDERS[split]}/", f"the {split} pictures of ADE20K")
    required(folder, f"annotations/{FOLDERS[split]}/", f"the {split} annotations of ADE20K")
    pictures = sorted(
        path.name for path in top.iterdir() if path.suffix.lower() in (".jpg", ".jpeg")
    )
    if not pictures:
        raise UsageError(f"{top}: there is no .jpg file in it; unpack ADEChallengeData2016.zip")
    return pictures
