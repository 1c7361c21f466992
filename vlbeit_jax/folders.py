"""Folders that appear whole or not at all, and the folder of the packaged model."""

import contextlib
import errno
import fcntl
import os
import pathlib
import shutil
import socket
import sys
from collections.abc import Iterator
from typing import IO

from vlbeit_jax.buckets import publish
from vlbeit_jax.buckets.lease import leased
from vlbeit_jax.buckets.path import BucketPath
from vlbeit_jax.errors import StorageError, UsageError
from vlbeit_jax.places import place
from vlbeit_jax.storage import explains_storage, no_room

# The run of launch/sample.sh, packed by tools/pack_model.py.
SAMPLE, SAMPLE_FOLDER = "sample", pathlib.Path(__file__).parent / "sample_model"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # Of file systems without locks.


def run_folder(given: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the folder of a run; "sample" is the small model in the package."""
    return SAMPLE_FOLDER if given == SAMPLE else place(given)


@contextlib.contextmanager
def locked(out: pathlib.Path, *, shared: bool = False) -> Iterator[None]:
    """Keeps other processes from writing ``out`` while the body runs.

    The lock is that of a hidden file beside ``out``. The system releases it however the process
    ends. In a bucket it is a claim, which expires.

    Args:
      out: a file or folder, which need not exist.
      shared: whether other processes that also pass True may write at the same time.

    Raises:
      UsageError: another process holds the lock, or nothing can be written beside ``out``.
      StorageError: there is no room for the file.
    """
    if isinstance(out, BucketPath):
        with _in_use_if_blocked(out), leased(publish.lock_of(out), shared=shared):
            yield
        return
    path = out.parent / f".{out.name}.lock"
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("a+")
        while not _holds(lock, path, kind, out):
            lock = path.open("a+")
    except OSError as error:
        raise UsageError(f"cannot write beside {out}: {error}") from error
    with lock:
        try:
            with explains_storage(out.parent):
                lock.truncate(0)
                # Not by Python's buffer: what finds no room would be written again at the end.
                os.write(lock.fileno(), f"{os.getpid()} on {socket.gethostname()}".encode())
            yield
        finally:
            # Another process that shares the lock still needs its file.
            with contextlib.suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)


def _holds(lock: IO[str], path: pathlib.Path, kind: int, out: pathlib.Path) -> bool:
    """Locks an open file; returns whether it is still the one at ``path``."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        holder = lock.read()
        lock.close()
        raise _in_use(out, holder) from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        print(f"{path.parent} has no locks: let no other command write {out}", file=sys.stderr)
        return True
    # The process that held it before may have removed the file in between.
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
            return True
    lock.close()
    return False


def _in_use(out: pathlib.Path, holder: str) -> UsageError:
    return UsageError(
        f"{out} is being written by process {holder or 'unknown'}; let it end, or name another "
        "folder"
    )


def require_absent(out: pathlib.Path) -> None:
    """Raises a ``UsageError`` if something stands at ``out``; an empty folder may.

    So may what a killed process has left in a bucket.
    """
    if is_incomplete(out):
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists already; name another folder or remove it")


@contextlib.contextmanager
def published(out: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder of this machine that becomes ``out`` on success and is removed on any failure.

    Raises:
      UsageError: ``out`` exists already, or another process is writing it.
      StorageError: there is no room for it.
    """
    out = place(out)
    try:
        with _uploaded(out) if isinstance(out, BucketPath) else _renamed(out) as folder:
            yield folder
    except (OSError, RuntimeError) as error:
        if why := no_room(error):
            raise StorageError(
                f"{out}: {why}, and nothing is left of it; make room, or name a folder on another "
                "disk"
            ) from error
        with explains_storage(out.parent):
            raise


@contextlib.contextmanager
def _uploaded(out: BucketPath) -> Iterator[pathlib.Path]:
    with _in_use_if_blocked(out), publish.uploaded(out) as folder:
        yield folder


@contextlib.contextmanager
def _in_use_if_blocked(out: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except BlockingIOError as error:
        raise _in_use(out, str(error)) from error


def is_incomplete(out: pathlib.Path) -> bool:
    """Whether ``out`` is what a process has left in a bucket that was killed before its end."""
    return isinstance(out, BucketPath) and publish.mark_of(out).exists()


@contextlib.contextmanager
def assembled(
    out: pathlib.Path, unfinished: pathlib.Path
) -> Iterator[tuple[pathlib.Path, pathlib.Path]]:
    """Two folders whose files are in ``out`` after the body: for large files, and for the others.

    On a disk both are ``unfinished``, which is then renamed. To a bucket, the caller brings each
    large file when it is written, so that not all of them need room at once.

    Args:
      out: the folder to make, which the caller has locked.
      unfinished: a folder on the same disk.

    Raises:
      UsageError: something stands at ``out``.
    """
    if isinstance(out, BucketPath):
        with publish.assembled(out) as folder:
            yield out, folder
        return
    shutil.rmtree(unfinished, ignore_errors=True)  # Of a start that was stopped.
    unfinished.mkdir()
    yield unfinished, unfinished
    replace_empty(unfinished, out)


@contextlib.contextmanager
def _renamed(out: pathlib.Path) -> Iterator[pathlib.Path]:
    require_absent(out)
    with locked(out):
        folder = out.parent / f".{out.name}.incomplete"
        try:
            # A process that has ended may have left it.
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        except OSError as error:
            raise UsageError(f"cannot write beside {out}: {error}") from error
        try:
            yield folder
            replace_empty(folder, out)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def replace_empty(folder: pathlib.Path, out: pathlib.Path) -> None:
    """Renames a finished folder to ``out``, where nothing or an empty folder stands.

    Raises:
      UsageError: something has come to stand there.
    """
    require_absent(out)
    if out.exists():
        out.rmdir()
    folder.rename(out)
