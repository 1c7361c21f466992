"""A first look at an input, from which formats recognise it."""

import os
import pathlib
from collections.abc import Iterator

from vlbeit_jax.places import names_below
from vlbeit_jax.prepare.formats.base import Found
from vlbeit_jax.prepare.formats.packed import head_of
from vlbeit_jax.prepare.formats.sidecars import is_sidecar

NAMES, SAMPLES = 2000, 16  # Of a folder: as many are looked at.


def look(path: pathlib.Path) -> Found:
    """Returns what formats may look at to recognise a file or a folder.

    Raises:
      OSError: it cannot be read.
    """
    if not path.is_dir():
        return Found(path, is_folder=False, head=head_of(path))
    names = [name for name in sorted(_some_names(path)) if not is_hidden(name)]
    chosen: dict[str, str] = {}
    for name in names:
        if not is_sidecar(path / name):
            chosen.setdefault(pathlib.PurePosixPath(name).suffix.lower(), name)
    samples = tuple(
        Found(path / name, is_folder=False, head=head_of(path / name))
        for name in list(chosen.values())[:SAMPLES]
    )
    return Found(path, is_folder=True, names=tuple(names), samples=samples)


def _some_names(top: pathlib.Path) -> list[str]:
    """Returns paths below a folder, those at the top first."""
    if (listed := names_below(top)) is not None:
        return sorted(listed, key=lambda name: name.count("/"))[:NAMES]
    names: list[str] = []
    for level in _levels(top):
        for folder in level:
            room = NAMES - len(names)
            files = sorted(entry.path for entry in os.scandir(folder) if entry.is_file())
            names += [pathlib.Path(path).relative_to(top).as_posix() for path in files[:room]]
            if len(names) >= NAMES:
                return names
    return names


def _levels(top: pathlib.Path) -> Iterator[list[str]]:
    """Yields the folders of each depth, of which there may be few thousand."""
    level = [str(top)]
    while level:
        yield level
        below: list[str] = []
        for folder in level:
            below += sorted(entry.path for entry in os.scandir(folder) if entry.is_dir())
            if len(below) >= NAMES:
                break
        level = below[:NAMES]


def is_hidden(name: str) -> bool:
    """Returns whether a file is one that systems add: a part of its path begins with a dot."""
    parts = name.split("/")
    return any(part == "__MACOSX" or (part[:1] == "." and part.strip(".")) for part in parts)
