"""Folders that appear whole or not at all."""

import contextlib
import errno
import pathlib
import shutil
from collections.abc import Iterator

from vlbeit_jax.errors import UsageError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def published(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder beside ``out`` that is renamed to it on success and removed on any failure.

    Raises:
      UsageError: ``out`` exists already, or there is no room for it.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists already; name another folder or remove it")
    folder = out.parent / f".{out.name}.incomplete"
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"cannot write beside {out}: {error}") from error
    try:
        yield folder
        if out.exists():
            out.rmdir()
        folder.rename(out)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise UsageError(
            f"{out}: {error.strerror}, and nothing is left of it; make room, or name a folder on "
            "another disk"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
