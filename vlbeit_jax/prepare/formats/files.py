"""Inputs that are files: given one by one, or all that fit below a folder."""

import collections
import os
import pathlib
from collections.abc import Callable, Sequence

from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import names_below
from vlbeit_jax.prepare.formats.base import Found
from vlbeit_jax.prepare.formats.look import is_hidden
from vlbeit_jax.prepare.formats.packed import head_of
from vlbeit_jax.prepare.formats.sidecars import is_sidecar

HIDDEN, SIDECAR, OTHER, LINK = "hidden", "sidecar", "other_file", "link"


def files_below(
    paths: Sequence[pathlib.Path],
    sniff: Callable[[Found], bool],
    skipped: collections.Counter[str],
) -> list[pathlib.Path]:
    """Returns the files to read, sorted within each input.

    Args:
      paths: of files, which are taken as they are, and of folders, of which all files count that
        are of the format.
      sniff: of the format.
      skipped: gets the number of files that are skipped, by reason.

    Raises:
      UsageError: a folder has no such file.
    """
    files: list[pathlib.Path] = []
    for path in paths:
        if not path.is_dir():
            if is_hidden(path.name) or is_sidecar(path):
                skipped[HIDDEN if is_hidden(path.name) else SIDECAR] += 1
            else:
                files.append(path)
            continue
        below = []
        for file in (path / name for name in visible_files(path, skipped)):
            if is_sidecar(file):
                skipped[SIDECAR] += 1
            elif sniff(Found(file, is_folder=False, head=head_of(file))):
                below.append(file)
            else:
                skipped[OTHER] += 1
        if not below:
            raise UsageError(f"{path}: there is no file of this format in this folder or below it")
        files += below
    if not files:
        told = ", ".join(f"{reason} {count}" for reason, count in skipped.items()) or "none"
        raise UsageError(f"the input has no file to read; files that were skipped: {told}")
    return list(dict.fromkeys(files))


def visible_files(top: pathlib.Path, skipped: collections.Counter[str]) -> list[str]:
    """Returns the paths of files below a folder, sorted by folder, and counts hidden ones.

    Links to folders are followed, except those that lead back to a folder that they are in.
    """
    if (listed := names_below(top)) is not None:
        seen = [name for name in listed if not is_hidden(name.rpartition("/")[0])]
        visible = [name for name in seen if not is_hidden(name)]
        if len(seen) > len(visible):
            skipped[HIDDEN] += len(seen) - len(visible)
        return visible
    visible: list[str] = []
    for folder, below, names in os.walk(top, followlinks=True):
        below[:] = [name for name in below if _is_entered(pathlib.Path(folder, name), skipped)]
        place = pathlib.PurePath(folder).relative_to(top)
        hidden = [name for name in names if is_hidden(name)]
        if hidden:
            skipped[HIDDEN] += len(hidden)
        visible += [(place / name).as_posix() for name in names if not is_hidden(name)]
    return sorted(visible, key=lambda name: name.split("/"))


def _is_entered(folder: pathlib.Path, skipped: collections.Counter[str]) -> bool:
    if is_hidden(folder.name):
        return False
    if folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve()):
        skipped[LINK] += 1
        return False
    return True


def require_folders(paths: Sequence[pathlib.Path]) -> None:
    """Raises a ``UsageError`` if an input is a file."""
    for path in paths:
        if not path.is_dir():
            raise UsageError(
                f"{path} is no folder; this format reads folders, so name the one that holds it"
            )


def require_files(paths: Sequence[pathlib.Path]) -> None:
    """Raises a ``UsageError`` if an input is a folder."""
    for path in paths:
        if path.is_dir():
            raise UsageError(
                f"{path} is a folder; name its files, or read its pictures with --format=folder"
            )
