"""Objects that a command reads: what the store has said of them is remembered.

They do not change while the command reads them. A command looks at each of its inputs several
times, and one list tells of a thousand of them.
"""

import pathlib
import posixpath
import re
from typing import Any, Self

from vlbeit_jax.buckets.path import FILE, FOLDER, BucketPath
from vlbeit_jax.buckets.store import SCHEME, explained, store

MAGIC = re.compile(r"[*?\[]")
_facts: dict[str, dict[str, Any] | None] = {}  # None: there is no such object.
_folders: dict[str, bool] = {}


class InputPath(BucketPath):
    """A path in a bucket below which nothing changes while this process runs."""

    def facts(self) -> dict[str, Any]:
        """Returns what the store has said of the object.

        Raises:
          FileNotFoundError: there is none.
        """
        address = str(self)
        if address not in _facts:
            try:
                _facts[address] = super().facts()
            except FileNotFoundError:
                _facts[address] = None
        remembered = _facts[address]
        if remembered is None:
            raise FileNotFoundError(address)
        return remembered

    def _type(self) -> str:
        if self.is_file():
            return FILE
        address = str(self)
        if address not in _folders:
            _folders[address] = super()._type() == FOLDER
        return FOLDER if _folders[address] else ""

    def resolve(self, strict: bool = False) -> Self:
        """Returns the path without ``..``: there are no links."""
        if not self.is_absolute():
            return self
        return type(self)(f"{SCHEME}://{posixpath.normpath('/'.join(self.parts[1:]))}")

    def names_below(self) -> list[str]:
        """Returns the names of all objects below, as seen from here, sorted."""
        with explained(self):
            listing = store().find(str(self), detail=True)
        return [path.relative_to(self).as_posix() for path in _remembered(listing)]


def forget() -> None:
    """Forgets all."""
    _facts.clear()
    _folders.clear()


def matching(pattern: str) -> list[pathlib.Path]:
    """Returns the objects and folders with a name of a pattern, or the one with this name, sorted.

    Objects come first where a pattern names both.
    """
    path = InputPath(pattern)
    if path.exists() or not MAGIC.search(pattern):
        return [path] if path.exists() else []
    with explained(path):
        listing = store().glob(pattern.rstrip("/"), detail=True)
    files = _remembered(listing)
    if files or "**" in pattern:
        return [*files]
    return [InputPath(f"{SCHEME}://{name.rstrip('/')}") for name in sorted(listing)]


def _remembered(listed: dict[str, dict[str, Any]]) -> list[InputPath]:
    """Returns the objects of a list, sorted by their names; an empty one may stand for a folder."""
    paths = []
    for name, facts in listed.items():
        if facts.get("type") == FILE and not name.endswith("/"):
            paths.append(path := InputPath(f"{SCHEME}://{name}"))
            _facts[str(path)] = facts
    return sorted(paths, key=lambda path: path.parts)
