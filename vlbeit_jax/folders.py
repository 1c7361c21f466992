"""Folders that appear whole or not at all, and the folder of the packaged model."""

import contextlib
import errno
import os
import pathlib
import shutil
from collections.abc import Iterator

from vlbeit_jax.errors import Reported, StorageError, UsageError

# The run of launch/sample.sh, packed by tools/pack_model.py.
SAMPLE, SAMPLE_FOLDER = "sample", pathlib.Path(__file__).parent / "sample_model"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FAILING = (*NO_ROOM, errno.EIO, errno.EROFS, errno.ESTALE, errno.ENODEV)


def run_folder(place: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the folder of a run; "sample" is the small model in the package."""
    return SAMPLE_FOLDER if place == SAMPLE else pathlib.Path(place)


@contextlib.contextmanager
def explains_storage(folder: pathlib.Path) -> Iterator[None]:
    """Turns the error of a full or failing disk, Python's or TensorStore's, into one message.

    Args:
      folder: that is written to.

    Raises:
      StorageError: the disk is full, or cannot be read or written.
    """
    try:
        yield
    except Reported:
        raise
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not (number := _number_of(cause)):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        raise StorageError(
            f"the disk of {folder} {_state_of(folder, number)}: {os.strerror(number)}; "
            f"{'make room' if number in NO_ROOM else 'see what is wrong with it'}, then run the "
            "same command again"
        ) from error


def _number_of(error: BaseException) -> int:
    """Returns the number of a disk's error in ``FAILING``; 0 if it is another error."""
    if isinstance(error, OSError) and error.errno in FAILING:
        return error.errno
    # shutil has the text of each file's error. Versions of TensorStore name it in two ways.
    said = str(error)
    for number in FAILING:
        marks = f"[Errno {number}]", f"os_error_code='{number}'", f"{errno.errorcode[number]} "
        if any(mark in said for mark in marks):
            return number
    return 0


def _state_of(folder: pathlib.Path, number: int) -> str:
    if number not in NO_ROOM:
        return "fails"
    existing = next((place for place in (folder, *folder.parents) if place.exists()), None)
    free = f" ({shutil.disk_usage(existing).free / 1e6:,.1f} MB are free)" if existing else ""
    return f"is full{free}"


def require_room(folder: pathlib.Path, needed: int, what: str) -> None:
    """Checks that a disk has room.

    Args:
      folder: on the disk.
      needed: bytes.
      what: needs them.

    Raises:
      StorageError: it has not.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StorageError(
            f"the disk of {folder} has {free / 1e6:,.1f} MB free, but {what} needs "
            f"{needed / 1e6:,.1f} MB; make room, then run the same command again"
        )


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
