"""Inputs that are files: given one by one, or all that fit below a folder."""

import collections
import pathlib
from collections.abc import Callable, Sequence

from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.formats.base import Found
from vlbeit_jax.prepare.formats.look import is_hidden
from vlbeit_jax.prepare.formats.packed import head_of
from vlbeit_jax.prepare.formats.sidecars import is_sidecar

HIDDEN, SIDECAR, OTHER = "hidden", "sidecar", "other_file"


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
      skipped: gets the number of files that are passed over, by reason.

    Raises:
      UsageError: a folder has no such file.
    """
    found: list[pathlib.Path] = []
    for path in paths:
        if not path.is_dir():
            if reason := _passed_over(path, path.name):
                skipped[reason] += 1
            else:
                found.append(path)
            continue
        below = []
        for file in sorted(file for file in path.rglob("*") if file.is_file()):
            if reason := _passed_over(file, file.relative_to(path).as_posix()):
                skipped[reason] += 1
            elif sniff(Found(file, is_folder=False, head=head_of(file))):
                below.append(file)
            else:
                skipped[OTHER] += 1
        if not below:
            raise UsageError(f"{path}: there is no file of this format in this folder or below it")
        found += below
    if not found:
        raise UsageError(f"the input has no file to read: {dict(skipped)} were passed over")
    return list(dict.fromkeys(found))


def _passed_over(file: pathlib.Path, name: str) -> str:
    if is_hidden(name):
        return HIDDEN
    return SIDECAR if is_sidecar(file) else ""


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
