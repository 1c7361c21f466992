"""Folders of this machine for files on their way to a bucket, or from one (``TMPDIR``).

The system keeps a lock on each while its process lives. So what a killed process has left is known,
and the next process removes it.
"""

import contextlib
import fcntl
import functools
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

NAME = "vlbeit_jax-staging-"


@contextlib.contextmanager
def staging() -> Iterator[pathlib.Path]:
    """Gives an empty folder, which is removed after the body."""
    _remove_left()
    # Another process may look at it before it is locked, and knows it by its name.
    made = pathlib.Path(tempfile.mkdtemp(prefix="."))
    folder = made.with_name(f"{NAME}{made.name.removeprefix('.')}")
    lock = os.open(made, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        made.rename(folder)
        yield folder
    finally:
        shutil.rmtree(folder if folder.exists() else made)
        os.close(lock)


@functools.cache
def _remove_left() -> None:
    """Removes the folders of this user's processes that have ended."""
    for folder in pathlib.Path(tempfile.gettempdir()).glob(f"{NAME}*"):
        with contextlib.suppress(FileNotFoundError, PermissionError, BlockingIOError):
            lock = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(lock).st_uid == os.getuid():
                    shutil.rmtree(folder)
            finally:
                os.close(lock)


@contextlib.contextmanager
def named_as(original: pathlib.Path, copy: pathlib.Path) -> Iterator[None]:
    """Lets errors of the body name ``original`` where they name its copy."""

    def renamed(said: object) -> object:
        if isinstance(said, str):
            return said.replace(str(copy), str(original))
        return [*map(renamed, said)] if isinstance(said, list) else said

    try:
        yield
    except Exception as error:
        error.args = tuple(map(renamed, error.args))
        for name, value in vars(error).items():
            setattr(error, name, renamed(value))
        raise
