"""What users name by a path: on a disk of this machine, or in a bucket.

Besides this file, only ``copies``, ``folders`` and ``storage`` ask which of the two it is. A disk
has locks, renames and files that grow. In a bucket, a claim that expires, objects that appear
whole, and joined objects take their place.
"""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import IO, Any

from vlbeit_jax.buckets import appended, bulk
from vlbeit_jax.buckets.inputs import InputPath, matching
from vlbeit_jax.buckets.lease import leased
from vlbeit_jax.buckets.path import BucketPath
from vlbeit_jax.buckets.staging import staging
from vlbeit_jax.buckets.store import SCHEME
from vlbeit_jax.errors import UsageError
from vlbeit_jax.storage import explains_storage

# As in s3://bucket/name; pathlib makes one slash of two.
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
BUCKET = re.compile(rf"{SCHEME}://[^/]+")


def place(given: str | os.PathLike[str], flag: str = "") -> pathlib.Path:
    """Returns the path of a file or folder that a user has named.

    Args:
      given: as it was named, such as runs/a or gs://bucket/runs/a.
      flag: that gave it, for the message; may be empty.

    Raises:
      UsageError: it is the address of another kind of store.
    """
    text = os.fspath(given)
    if BUCKET.match(text):
        return BucketPath(text)
    if ADDRESS.match(text) and not os.path.lexists(text):
        raise UsageError(
            f"{flag}{flag and '='}{text}: only folders of this machine, and gs://BUCKET/NAME, "
            "can be used; copy it, or mount the store as a folder (gcsfuse, s3fs)"
        )
    return pathlib.Path(given)


def input_path(given: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the path of a file or folder that a command reads while it does not change.

    Args:
      given: as ``place`` takes it, and has checked it.
    """
    return InputPath(given) if BUCKET.match(os.fspath(given)) else pathlib.Path(given)


def inputs_of(pattern: str) -> list[pathlib.Path] | None:
    """Returns what a pattern names in a bucket, sorted; None: it is no address of a bucket."""
    return matching(pattern) if BUCKET.match(pattern) else None


def names_below(folder: pathlib.Path) -> list[str] | None:
    """Returns the names of all files below an ``input_path`` in a bucket, by few requests.

    Those on a disk (None) are found folder by folder.
    """
    return folder.names_below() if isinstance(folder, InputPath) else None


def renames_folders(path: pathlib.Path) -> bool:
    """Whether a folder can get its name when it is complete, so that its name proves it."""
    return not isinstance(path, BucketPath)


def append(path: pathlib.Path, content: bytes) -> None:
    """Adds lines to the end of a file. It may take seconds until they are there: see ``settle``.

    A process that was killed, or a disk that was full, may have left the last line cut off. What is
    added begins on a line of its own.
    """
    if isinstance(path, BucketPath):
        appended.append(path, content)
        return
    with path.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            content = content if file.read(1) == b"\n" else b"\n" + content
        file.write(content)


def settle() -> None:
    """Returns when all that was appended is in its files.

    Raises:
      StorageError: some of it could not be written.
    """
    appended.settle()


@contextlib.contextmanager
def appearing(path: pathlib.Path, mode: str = "w", *, by_many: bool = False) -> Iterator[IO[Any]]:
    """A file that appears at ``path``, or takes another's place, when all of it is written.

    Args:
      path: of the file.
      mode: "w" for a text in UTF-8, "wb" for bytes.
      by_many: whether several processes may write it at a time; the last one's content stays.

    Raises:
      StorageError: there is no room for it, or the disk fails.
      UsageError: this user may not write it.
    """
    with contextlib.ExitStack() as stack:
        writer = f".{os.getpid()}" if by_many else ""
        unfinished = path.with_name(f".{path.name}{writer}.tmp")
        if isinstance(path, BucketPath):
            unfinished = stack.enter_context(staging()) / "file"
        try:
            with unfinished.open(mode, encoding=None if "b" in mode else "utf-8") as out:
                yield out
            if isinstance(path, BucketPath):
                path.parent.upload({path.name: unfinished})
            else:
                unfinished.replace(path)
        except OSError:
            with explains_storage(path.parent):
                raise
        finally:
            unfinished.unlink(missing_ok=True)


def remove_tree(path: pathlib.Path) -> None:
    """Removes a folder with all that is in it, if there is one."""
    if isinstance(path, BucketPath):
        path.rmtree()
    else:
        shutil.rmtree(path, ignore_errors=True)


def removal(folder: pathlib.Path) -> str:
    """Returns the command that removes a folder."""
    program = "gcloud storage rm --recursive" if isinstance(folder, BucketPath) else "rm -r"
    return f"{program} {folder}"


def copy_tree(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies a folder with all that is in it; files of the same names are replaced."""
    if not isinstance(target, BucketPath):
        if isinstance(source, BucketPath):
            bulk.download(source, source.files(), target)
        else:
            shutil.copytree(source, target, dirs_exist_ok=True)
    elif isinstance(source, BucketPath):
        bulk.copy({path: target / path.relative_to(source) for path in source.files()})
    else:
        files = [path for path in sorted(source.rglob("*")) if path.is_file()]
        target.upload({path.relative_to(source).as_posix(): path for path in files})


def relative(path: pathlib.Path, folder: pathlib.Path) -> str:
    """Returns a path as seen from a folder; in full if they are not in one place."""
    if isinstance(path, BucketPath) != isinstance(folder, BucketPath):
        return str(path.absolute())
    return os.path.relpath(path, folder)


def bytes_in(folder: pathlib.Path) -> int:
    """Returns the size of all files below a folder."""
    if isinstance(folder, BucketPath):
        return bulk.bytes_below(folder)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def fetched(path: pathlib.Path) -> pathlib.Path:
    """Returns a path that any program can open: a file's own, or that of a copy on this machine.

    The copy of an object is kept in the user's cache, and used until the object changes.

    Raises:
      FileNotFoundError: there is no such object.
    """
    if not isinstance(path, BucketPath):
        return path
    version = f"{path} {path.facts()['generation']}"
    folder = _cache() / hashlib.sha256(version.encode()).hexdigest()[:24]
    copy = folder / path.name
    if not copy.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f".{path.name}.{os.getpid()}"
        try:
            path.fetch(unfinished)
            unfinished.replace(copy)
        finally:
            unfinished.unlink(missing_ok=True)
    return copy


def _cache() -> pathlib.Path:
    named = os.environ.get("XDG_CACHE_HOME")
    folder = pathlib.Path(named) if named else pathlib.Path.home() / ".cache"
    return folder / "vlbeit_jax" / "buckets"


@contextlib.contextmanager
def held(path: pathlib.Path) -> Iterator[None]:
    """Keeps other processes out of what the file ``path`` stands for, while the body runs.

    Raises:
      BlockingIOError: another process is in.
      OSError: the file cannot be written, or its file system has no locks.
    """
    if isinstance(path, BucketPath):
        with leased(path):
            try:
                yield
            finally:
                settle()
        return
    with path.open("w") as lock:  # The system releases the lock however the process ends.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def require_writable(path: pathlib.Path) -> None:
    """Checks that a file can be written, before an hour's work is lost.

    Raises:
      UsageError: the path is a folder, or its folder is missing or cannot be written.
    """
    if isinstance(path, BucketPath):
        trial = path.with_name(f".{path.name}.trial")
        trial.write_bytes(b"")
        trial.unlink(missing_ok=True)
    if path.is_dir() or not _is_folder(path.parent):
        raise UsageError(f"{path} cannot be written: give a file in an existing, writable folder")


def _is_folder(folder: pathlib.Path) -> bool:
    if isinstance(folder, BucketPath):
        return True  # It comes with its first object.
    return folder.is_dir() and os.access(folder, os.W_OK)
