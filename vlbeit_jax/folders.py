"""Folders that appear whole or not at all, and the folder of the packaged model."""

import contextlib
import errno
import os
import pathlib
import shutil
from collections.abc import Iterator

from vlbeit_jax.errors import UsageError

# The run of launch/sample.sh, packed by tools/pack_model.py.
SAMPLE, SAMPLE_FOLDER = "sample", pathlib.Path(__file__).parent / "sample_model"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run_folder(place: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the folder of a run; "sample" is the small model in the package."""
    return SAMPLE_FOLDER if place == SAMPLE else pathlib.Path(place)


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
