"""Copies on a disk of this machine of what is in a bucket, for programs that need a file.

A path on a disk is used as it is.
"""

import collections
import contextlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TypeVar

from vlbeit_jax.buckets import bulk
from vlbeit_jax.buckets.path import PARALLEL, BucketPath
from vlbeit_jax.buckets.staging import named_as, staging
from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import copy_tree

Result = TypeVar("Result")


@contextlib.contextmanager
def local_copy(folder: pathlib.Path, names: str = "*") -> Iterator[pathlib.Path]:
    """Gives a folder of this machine with the same files, for programs that read no buckets.

    Args:
      folder: of the files.
      names: pattern of those that are wanted.
    """
    if not isinstance(folder, BucketPath):
        yield folder
        return
    with staging() as copied:
        bulk.download(folder, folder.rglob(names), copied)
        yield copied


@contextlib.contextmanager
def filled(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder of this machine whose files are in ``folder`` after the body, for such programs."""
    if not isinstance(folder, BucketPath):
        yield folder
        return
    with staging() as made:
        yield made
        copy_tree(made, folder)


@contextlib.contextmanager
def on_disk(path: pathlib.Path, beside: str = "") -> Iterator[pathlib.Path]:
    """Gives a file that any program can open: ``path``, or a copy that goes after the body.

    Errors of the body name ``path`` in both cases.

    Args:
      path: of the file.
      beside: pattern of the names of files in its folder that are wanted too; may be empty.

    Raises:
      UsageError: there is no such object.
    """
    if not isinstance(path, BucketPath):
        yield path
        return
    with staging() as folder, named_as(path.parent, folder):
        if not path.is_file():
            raise UsageError(f"{path}: no such file")
        wanted = {path, *(path.parent.glob(beside) if beside else ())}
        bulk.download(path.parent, wanted, folder)
        yield folder / path.name


@contextlib.contextmanager
def staged(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path of this machine; the file that is written there is at ``path`` after the body."""
    if not isinstance(path, BucketPath):
        yield path
        return
    with staging() as folder:
        yield folder / path.name
        path.parent.upload({path.name: folder / path.name})


def contents(folder: pathlib.Path, names: str) -> dict[str, bytes]:
    """Returns the contents of the files in a folder whose names have a pattern, by name."""
    if isinstance(folder, BucketPath):
        return bulk.contents(folder, names)
    return {path.name: path.read_bytes() for path in folder.glob(names)}


def disk_of(path: pathlib.Path) -> pathlib.Path:
    """Returns a folder on the disk that fills up when ``path`` is written."""
    return pathlib.Path(tempfile.gettempdir()) if isinstance(path, BucketPath) else path


def openable(path: pathlib.Path) -> pathlib.Path | IO[bytes]:
    """Returns what libraries open that take a path or a stream."""
    return path.open("rb") if isinstance(path, BucketPath) else path


def in_turn(
    call: Callable[[pathlib.Path], Result], paths: Iterable[pathlib.Path]
) -> Iterator[Result]:
    """Yields the result for each path, in their order; several requests to a bucket at a time."""
    remaining = iter(paths)
    if (first := next(remaining, None)) is None:
        return
    if not isinstance(first, BucketPath):
        yield call(first)
        yield from map(call, remaining)
        return
    with ThreadPoolExecutor(PARALLEL) as pool:
        coming = collections.deque([pool.submit(call, first)])
        for path in remaining:
            coming.append(pool.submit(call, path))
            if len(coming) > PARALLEL:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def second_name(source: pathlib.Path, target: pathlib.Path) -> None:
    """Lets a file also be at ``target``; on a disk, without a copy if possible."""
    if isinstance(source, BucketPath) and isinstance(target, BucketPath):
        bulk.copy({source: target})
        return
    try:
        os.link(source, target)
    except OSError:  # This file system has no second names.
        shutil.copyfile(source, target)
