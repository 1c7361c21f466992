"""Folders of pictures, at any depth; the caption of NAME.jpg is in NAME.txt beside it, if any."""

import pathlib
from collections.abc import Iterator, Sequence

from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.formats.base import Found, Options, Plan, Unit, a_unit_each
from vlbeit_jax.prepare.formats.webdataset import IMAGES
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.types import Kind

KINDS = frozenset({Kind.IMAGES, Kind.PAIRS})


def sniff(found: Found) -> bool:
    """Returns whether there are pictures in a folder."""
    return any(name.rpartition(".")[2].lower() in IMAGES for name in found.names)


def plan(paths: Sequence[pathlib.Path], options: Options) -> Plan:
    """Plans one unit a folder.

    Raises:
      UsageError: a folder holds no picture.
    """
    units = a_unit_each(paths)
    pictures = {path: _pictures(path) for path in paths}
    for folder, found in pictures.items():
        if not found:
            raise UsageError(
                f"{folder}: there is no picture in this folder or below it; pictures are files "
                f"that end with .{', .'.join(sorted(IMAGES))}"
            )
    return Plan(units, items=sum(map(len, pictures.values())))


def read(unit: Unit, options: Options) -> Iterator[Item]:
    """One item a picture, in the order of their paths; hidden files and folders are passed over.

    Raises:
      UsageError: a caption is not UTF-8.
    """
    folder, source = pathlib.Path(unit.path), pathlib.PurePosixPath(unit.source)
    for path in _pictures(folder):
        caption = _caption((folder / path).with_suffix(".txt"))
        name = (source / path).as_posix()
        yield Item(name, (folder / path).read_bytes(), (caption,) if caption else (), source=name)


def _pictures(folder: pathlib.Path) -> list[pathlib.Path]:
    pictures = sorted(
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.suffix[1:].lower() in IMAGES and path.is_file()
    )
    return [path for path in pictures if not any(part[0] == "." for part in path.parts)]


def _caption(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig").strip() if path.is_file() else ""
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 text ({error})") from error
