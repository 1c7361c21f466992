"""Folders of pictures, at any depth, as they are or as img2dataset writes them with "files".

Captions of NAME.jpg are the lines of NAME.txt beside it, or else in NAME.json. Its label is the
name of the folder that it is in.
"""

import pathlib
from collections import Counter
from collections.abc import Iterator, Sequence

from vlbeit_jax.copies import in_turn
from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import input_path
from vlbeit_jax.prepare.formats.base import UNIT_PICTURES, Found, Options, Plan, Unit, a_unit_each
from vlbeit_jax.prepare.formats.captions import words_of
from vlbeit_jax.prepare.formats.files import (
    OTHER,
    SIDECAR,
    require_folders,
    visible_files,
)
from vlbeit_jax.prepare.formats.pictures import (
    IMAGES,
    MISSING,
    begins_as_picture,
    is_picture,
)
from vlbeit_jax.prepare.formats.sidecars import STATS, is_sidecar, links_of
from vlbeit_jax.prepare.formats.words import printable
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.storage import raise_of_storage
from vlbeit_jax.types import Kind

KINDS = frozenset({Kind.IMAGES, Kind.PAIRS, Kind.LABELLED_IMAGES})
BESIDE = {"txt": "txt", "TXT": "txt", "json": "json"}  # Suffixes of what describes a picture.


def sniff(found: Found) -> bool:
    """Returns whether there are pictures in a folder."""
    return any(is_picture(name) for name in found.names) or (
        found.is_folder and any(begins_as_picture(file.head) for file in found.samples)
    )


def plan(paths: Sequence[pathlib.Path], options: Options) -> Plan:
    """Lists the pictures of each folder and divides them.

    Raises:
      UsageError: an input is no folder, or holds no picture.
    """
    require_folders(paths)
    result = Plan([], items=0)
    stats: list[pathlib.Path] = []
    for whole in a_unit_each(paths):
        top = input_path(whole.path)
        found = _pictures(top, result.skipped, stats)
        if not found:
            raise UsageError(
                f"{top}: there is no picture in this folder or below it; pictures are files "
                f"that end with .{', .'.join(sorted(IMAGES))}, or begin as one"
            )
        for start in range(0, len(found), UNIT_PICTURES):
            names = found[start : start + UNIT_PICTURES]
            unit = Unit(whole.path, whole.source, start, start + len(names), {"names": names})
            result.units.append(unit)
        result.items = (result.items or 0) + len(found)
    result.links = links_of(stats)
    return result


def read(unit: Unit, options: Options) -> Iterator[Item]:
    """Yields one item a picture, in the order of their paths."""
    names = unit.extra["names"]
    found = in_turn(_contents, [input_path(unit.path) / name for name in names])
    for name, (image, contents) in zip(names, found, strict=True):
        key = f"{unit.source}/{name}"
        if image is None:
            yield Item(key, source=key, fault=MISSING)
            continue
        words = words_of(contents, [each for each in contents if each == "txt"], has_picture=True)
        label = printable(pathlib.PurePosixPath(name).parent.name) if "/" in name else ""
        yield Item(key, image, source=key, label=label, **words)


def _contents(path: pathlib.Path) -> tuple[bytes | None, dict[str, bytes]]:
    """Returns a picture, and what describes it; without it if it cannot be read."""
    try:
        return path.read_bytes(), _beside(path)
    except OSError as error:
        raise_of_storage(error, path)
        return None, {}


def _beside(path: pathlib.Path) -> dict[str, bytes]:
    """Returns the contents of the files that describe a picture."""
    found = {}
    for suffix, what in BESIDE.items():
        other = path.with_suffix(f".{suffix}")
        try:
            found[what] = other.read_bytes()
        except OSError as error:
            raise_of_storage(error, other)
            continue  # There is none.
    return found


def _pictures(top: pathlib.Path, skipped: Counter[str], stats: list[pathlib.Path]) -> list[str]:
    """Returns the pictures below a folder, sorted; counts and gathers what else is there."""
    pictures, others = [], []
    for name in visible_files(top, skipped):
        (pictures if is_picture(name) else others).append(name)
    described = {pathlib.PurePosixPath(name).with_suffix("") for name in pictures}
    for name in others:
        pure = pathlib.PurePosixPath(name)
        if pure.suffix[1:] in BESIDE and pure.with_suffix("") in described:
            continue
        if name.endswith(STATS):
            stats.append(top / name.removesuffix(STATS))
        if is_sidecar(top / name):
            skipped[SIDECAR] += 1
        elif _begins_as_picture(top / name):
            pictures.append(name)
        else:
            skipped[OTHER] += 1
    return sorted(pictures, key=lambda name: name.split("/"))


def _begins_as_picture(path: pathlib.Path) -> bool:
    try:
        with path.open("rb") as file:
            return begins_as_picture(file.read(16))
    except OSError as error:
        raise_of_storage(error, path)
        return False
