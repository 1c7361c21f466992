"""Karpathy's splits of COCO and Flickr30k: ``dataset_coco.json``, ``dataset_flickr30k.json``.

Pictures of COCO are in ``train2014/`` and ``val2014/`` beside the file, as it says. It names no
folder for those of Flickr30k, which are in ``flickr30k-images/``. COCO's "restval", the part of
val2014 that is in neither validation nor test, is trained on, as in all published figures.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vlbeit_jax.data.identity import TEST, TRAIN, VALIDATION
from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import input_path
from vlbeit_jax.prepare.formats.base import Found, Options, Plan, Unit
from vlbeit_jax.prepare.formats.files import require_files
from vlbeit_jax.prepare.formats.listed import Place, listed, read_at
from vlbeit_jax.prepare.formats.official import (
    Pictures,
    divided,
    missing,
    only_one,
    ranges,
    required,
    splits_of,
)
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.types import Kind

KINDS = frozenset({Kind.IMAGES, Kind.PAIRS})
SPLIT = {"train": TRAIN, "restval": TRAIN, "val": VALIDATION, "test": TEST}
PICTURES = "flickr30k-images"
RECORD = {"filename": str, "split": str, "sentences": list}


def sniff(found: Found) -> bool:
    """Returns whether a file begins as a JSON object whose pictures have sentences."""
    begins = not found.is_folder and found.head.lstrip().startswith(b"{")
    return begins and all(name in found.head for name in (b'"sentences"', b'"sentids"'))


def plan(paths: Sequence[pathlib.Path], options: Options) -> Plan:
    """Divides the pictures of each split.

    Raises:
      UsageError: the file is another one, or a folder of pictures is missing.
    """
    path = only_one(paths, "karpathy")
    require_files([path])
    places: dict[str, list[tuple[int, Place]]] = {split: [] for split in SPLIT.values()}
    folders: dict[str, set[str]] = {split: set() for split in SPLIT.values()}
    for number, (place, each) in enumerate(listed(path, "images")):
        if fault := missing(each, RECORD):
            raise UsageError(f"{path}: of images[{number}]: {fault}")
        if each["split"] not in SPLIT:
            raise UsageError(
                f"{path}: of images[{number}]: its split {each['split']!r} is none of "
                f"{', '.join(SPLIT)}"
            )
        places[SPLIT[each["split"]]].append((number, place))
        folders[SPLIT[each["split"]]].add(_below(each))
    for below in sorted(set().union(*(folders[split] for split in splits_of(options)))):
        required(path.parent, f"{below}/", f"pictures that {path.name} names")

    def units(whole: Unit, split: str) -> list[Unit]:
        return [
            dataclasses.replace(
                unit, extra={"split": split, "places": places[split][unit.start : unit.stop]}
            )
            for unit in ranges(whole, len(places[split]))
        ]

    return divided(path, options, places, units)


def read(unit: Unit, options: Options) -> Iterator[Item]:
    """Yields each picture with all its captions. The id is COCO's number, or the file's name."""
    path = input_path(unit.path)
    numbers, places = zip(*unit.extra["places"], strict=True)
    pictures = Pictures(path.parent)
    for number, each in zip(numbers, read_at(path, places), strict=True):
        yield _item(each, unit.extra["split"], f"{path}: images[{number}]", pictures)


def _item(record: Mapping[str, Any], split: str, place: str, pictures: Pictures) -> Item:
    source = f"{_below(record)}/{record['filename']}"
    image, fault = pictures.read(source)
    captions = [each.get("raw") if isinstance(each, dict) else None for each in record["sentences"]]
    if not captions or not all(isinstance(each, str) and each.strip() for each in captions):
        fault = fault or "one of its 'sentences' has no text under 'raw', or there is none"
        captions = []
    return Item(
        str(record.get("cocoid", pathlib.PurePath(record["filename"]).stem)),
        image,
        tuple(str(each).strip() for each in captions),
        source=source,
        split=split,
        place=place,
        fault=fault,
    )


def _below(record: Mapping[str, Any]) -> str:
    return str(record.get("filepath", PICTURES))
