"""Full and failing disks, and files of other users: one message that names the place."""

import contextlib
import errno
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence

from vlbeit_jax.buckets.path import BucketPath
from vlbeit_jax.buckets.store import told_of_bucket
from vlbeit_jax.errors import Exit, Reported, StorageError, UsageError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FAILING = (*NO_ROOM, errno.EIO, errno.EROFS, errno.ESTALE, errno.ENODEV)
# While a file is read, these say as well that nothing is known of its content. Elsewhere they may
# come from the network. ENOTCONN is a mounted bucket whose gcsfuse has ended.
MACHINE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
AWAY = (errno.ENOTCONN, errno.ETIMEDOUT, errno.EREMOTEIO, errno.EHOSTDOWN)
UNREAD = (*FAILING, *MACHINE, *AWAY)
# EIO may be that of one bad place on a disk: of one file, and not of the storage.
NOT_OF_A_FILE = tuple(number for number in UNREAD if number != errno.EIO)
# A read-only file system may be a mistake in the command.
BEHIND = tuple(number for number in FAILING if number != errno.EROFS)
NOT_ALLOWED = (errno.EACCES, errno.EPERM)


def no_room(error: BaseException) -> str:
    """Returns why there is no room for a file, if this is what an error says; otherwise ""."""
    number = _number_of(error, NO_ROOM)
    return os.strerror(number) if number else ""


def not_allowed(error: BaseException, folder: object) -> str:
    """Returns a message if an error says that this user may not do something; otherwise "".

    Args:
      error: Python's or TensorStore's.
      folder: that the message names if the error names no file.
    """
    number = _number_of(error, NOT_ALLOWED)
    if not number:
        return ""
    place = getattr(error, "filename", None) or folder
    return (
        f"{place}: {os.strerror(number)} for user {os.getuid()}; give this user the right to read "
        "and write it (chown, chmod), or name another folder, then run the same command again"
    )


@contextlib.contextmanager
def explains_storage(folder: pathlib.Path) -> Iterator[None]:
    """Turns the error of a full or failing disk, Python's or TensorStore's, into one message.

    Args:
      folder: that is written to.

    Raises:
      StorageError: the disk is full, or cannot be read or written; or the bucket does not answer.
      UsageError: this user may not read or write a file.
    """
    try:
        yield
    except Reported as error:
        if (told := unmasked(error)) is not error:
            raise told from error
        raise
    except Exception as error:
        if told := told_of_storage(error, folder):
            raise told from error
        raise


def unmasked(error: Reported) -> Reported:
    """Returns an error as a ``StorageError`` if it was made from that of a full or failing disk.

    A file that cannot be read at the moment is often told as a mistake or as bad data. After these,
    launch scripts do not start a command again.
    """
    cause = error.__cause__ if error.code in (Exit.USAGE, Exit.BAD_DATA) else None
    while cause is not None:
        on_file = getattr(cause, "filename", None) is not None
        if number := _number_of(cause, (*BEHIND, *AWAY) if on_file else BEHIND):
            state, then = _advice(number)
            return StorageError(
                f"{error}; the disk {state}: {then}, then run the same command again"
            )
        cause = cause.__cause__ or cause.__context__
    return error


def told_of_storage(
    error: Exception, folder: pathlib.Path | None, numbers: Sequence[int] = FAILING
) -> Reported | None:
    """Returns what the user is told if an error, or one behind it, is that of the storage.

    Args:
      error: of Python, TensorStore or another library.
      folder: that is read or written; None: that of the file that the error names.
      numbers: the system's numbers of such errors. Where nothing but files was read, these are
        ``UNREAD``, or ``NOT_OF_A_FILE`` if others may take the place of one that is unreadable.
    """
    reading = numbers != FAILING
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(folder, BucketPath) and (told := told_of_bucket(folder, cause, reading)):
            return told
        if said := not_allowed(cause, folder):
            return UsageError(said)
        if number := _number_of(cause, numbers):
            return StorageError(_failure(cause, folder, number))
        cause = cause.__cause__ or cause.__context__
    return None


def raise_if_away(error: Exception, folder: pathlib.Path) -> None:
    """Raises a ``StorageError`` if files could not be read here and now, whatever they hold."""
    told = told_of_storage(error, folder, NOT_OF_A_FILE)
    if isinstance(told, StorageError):
        raise told from error


def raise_of_storage(error: Exception, path: pathlib.Path) -> None:
    """Raises a ``StorageError`` if a file could not be read for a reason that is not the file's.

    Whoever would count the file as missing or damaged calls it first.
    """
    told = told_of_storage(error, path, UNREAD)
    if isinstance(told, StorageError):
        raise told from error


def _failure(error: BaseException, folder: pathlib.Path | None, number: int) -> str:
    """Returns what is wrong with the disk on which a file or folder is."""
    named = getattr(error, "filename", None)
    if folder is None or isinstance(folder, BucketPath):
        # What goes to a bucket is made on a disk.
        elsewhere = pathlib.Path(tempfile.gettempdir()) if folder else None
        folder = pathlib.Path(named) if isinstance(named, str) else elsewhere
    if number in MACHINE:
        return (
            f"{folder} cannot be read now: {os.strerror(number)}; give this machine more of it "
            "(ulimit -n, memory), then run the same command again"
        )
    state, then = _advice(number)
    if number in NO_ROOM and folder:
        existing = next((place for place in (folder, *folder.parents) if place.exists()), None)
        free = f"{shutil.disk_usage(existing).free / 1e6:,.1f}" if existing else "no"
        state += f" ({free} MB are free)"
    disk = f"the disk of {folder}" if folder else "a disk that this command uses"
    return f"{disk} {state}: {os.strerror(number)}; {then}, then run the same command again"


def _advice(number: int) -> tuple[str, str]:
    """Returns what a disk is, and what the user does."""
    return ("is full", "make room") if number in NO_ROOM else ("fails", "see what is wrong with it")


def _number_of(error: BaseException, numbers: Sequence[int]) -> int:
    """Returns which of the system's ``numbers`` an error has; 0 if it is another error."""
    if isinstance(error, OSError) and error.errno and error.errno in numbers:
        return error.errno
    # shutil has the text of each file's error, ArrayRecord's writer the system's. Versions of
    # TensorStore name it in two ways.
    said = str(error)
    for number in numbers:
        marks = (
            f"[Errno {number}]",
            f"os_error_code='{number}'",
            f"{errno.errorcode[number]} ",
            f": {os.strerror(number)}",
        )
        if any(mark in said for mark in marks):
            return number
    return 0


def require_right_to_write(folder: pathlib.Path) -> None:
    """Checks that this user may write to a folder, before the first file of it is ready.

    Raises:
      UsageError: it belongs to another user.
    """
    if not isinstance(folder, BucketPath) and not os.access(folder, os.W_OK):
        denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        raise UsageError(not_allowed(denied, folder))


def require_room(folder: pathlib.Path, needed: int, what: str) -> None:
    """Checks that a disk has room.

    Args:
      folder: on the disk.
      needed: bytes.
      what: needs them.

    Raises:
      StorageError: it has not.
    """
    if isinstance(folder, BucketPath):
        return  # It is as large as it is paid for.
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StorageError(
            f"the disk of {folder} has {free / 1e6:,.1f} MB free, but {what} needs "
            f"{needed / 1e6:,.1f} MB; make room, then run the same command again"
        )
