"""What ``--input`` may be: files, folders and patterns."""

import glob
import itertools
import os
import pathlib
import re
from collections.abc import Iterator, Sequence

from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import inputs_of

BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)$")
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?://|\S)")


def expand(patterns: Sequence[str]) -> list[pathlib.Path]:
    """Returns the files and folders of some paths and patterns, sorted within each, each once.

    A path that exists is taken as it is, with any brackets or stars in its name. Otherwise
    ``{0000..0009}`` and ``{a,b}`` stand for several paths, ``*``, ``?`` and ``[0-9]`` for a part of
    a name, and ``**`` for any number of folders.

    Raises:
      UsageError: one of them names nothing, or is an address or a command.
    """
    expanded: list[pathlib.Path] = []
    for pattern in patterns:
        if os.path.lexists(pattern):
            expanded.append(pathlib.Path(pattern))
            continue
        if (inside := inputs_of(pattern)) is not None:
            expanded += inside or _in_bucket(pattern)
            continue
        if SCHEME.match(pattern):
            raise UsageError(
                f"--input={pattern}: only files of this machine and gs://BUCKET/NAME are read; "
                "copy or mount it first, and name the file"
            )
        for path in _braces(pattern):
            paths = [path] if os.path.lexists(path) else sorted(glob.glob(path, recursive=True))
            # A pattern names folders only where it names no file: ** names both.
            files = [each for each in paths if not os.path.isdir(each)]
            paths = files or ([] if "**" in path else paths)
            if not paths:
                raise UsageError(f"--input={pattern}: {_nothing(pattern, path)}")
            expanded += map(pathlib.Path, paths)
    for path in expanded:
        if path.is_symlink() and not path.exists():
            raise UsageError(f"--input={path}: this link leads to nothing")
    if len({type(path) for path in expanded}) > 1:
        raise UsageError("--input: some are in a bucket and some are not; prepare one set of each")
    return list(dict.fromkeys(expanded))


def _in_bucket(pattern: str) -> list[pathlib.Path]:
    """Returns what a pattern with braces names in a bucket."""
    paths: list[pathlib.Path] = []
    for path in _braces(pattern):
        if not (inside := inputs_of(path)):
            raise UsageError(f"--input={pattern}: no such object or folder ({path})")
        paths += inside
    return paths


def _braces(pattern: str) -> Iterator[str]:
    """Yields the paths that a pattern with braces stands for, as a shell does."""
    match = BRACES.search(pattern)
    if not match:
        yield pattern
        return
    inside = match[1]
    if numbers := RANGE.match(inside):
        first, last = numbers.groups()
        width = max(len(first), len(last)) if "0" in (first[0], last[0]) else 0
        step = 1 if int(last) >= int(first) else -1
        choices = [f"{each:0{width}d}" for each in range(int(first), int(last) + step, step)]
    elif "," in inside:
        choices = inside.split(",")
    else:
        choices = [f"\x01{inside}\x02"]  # Braces that mean nothing stay.
    for choice, rest in itertools.product(choices, _braces(pattern[match.end() :])):
        yield (pattern[: match.start()] + choice + rest).replace("\x01", "{").replace("\x02", "}")


def _nothing(pattern: str, path: str) -> str:
    """Returns what is missing, as precisely as can be said."""
    if not glob.has_magic(path):
        folder = pathlib.Path(path).parent
        where = "" if folder.is_dir() else f"; there is no folder {folder} either"
        which = f" ({path})" if path != pattern else ""
        return f"no such file or folder{which}{where}"
    return "no such file or folder: nothing has a name like this"
