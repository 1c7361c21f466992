"""A folder in a bucket that readers take for whole only when it is.

A mark beside it says that it is not whole, so that a process that takes the place of a killed one
removes what that one has left.
"""

import contextlib
import pathlib
from collections.abc import Iterator

from vlbeit_jax.buckets.lease import leased
from vlbeit_jax.buckets.path import BucketPath
from vlbeit_jax.buckets.staging import staging
from vlbeit_jax.errors import UsageError


def lock_of(out: BucketPath) -> BucketPath:
    """Returns the place of the claim on a file or folder."""
    return out.with_name(f".{out.name}.lock")


def mark_of(out: BucketPath) -> BucketPath:
    """Returns the place of the mark of a folder that is not whole."""
    return out.with_name(f".{out.name}.incomplete")


@contextlib.contextmanager
def uploaded(out: BucketPath) -> Iterator[pathlib.Path]:
    """Gives a folder of this machine, whose files are in ``out`` when the body has ended.

    Raises:
      BlockingIOError: another process writes it.
      UsageError: there is something at ``out``.
    """
    with leased(lock_of(out)):
        _clear(out)
        with staging() as folder:
            yield folder
            with _marked(out):
                _upload(folder, out)


@contextlib.contextmanager
def assembled(out: BucketPath) -> Iterator[pathlib.Path]:
    """As ``uploaded`` for a caller that has claimed ``out``, and uploads other files itself."""
    with _marked(out), staging() as folder:
        yield folder
        _upload(folder, out)


@contextlib.contextmanager
def _marked(out: BucketPath) -> Iterator[None]:
    mark = mark_of(out)
    _clear(out)
    mark.write_bytes(b"")
    try:
        yield
    except BaseException:
        out.rmtree()
        mark.unlink(missing_ok=True)
        raise
    mark.unlink(missing_ok=True)


def _clear(out: BucketPath) -> None:
    """Removes what a killed process has left; refuses anything else."""
    if mark_of(out).exists():
        out.rmtree()
    elif out.exists():
        raise UsageError(f"{out} exists already; name another folder or remove it")


def _upload(folder: pathlib.Path, out: BucketPath) -> None:
    """Copies files into a bucket; the descriptions (.json at the top) come last.

    Without them no reader takes the folder for anything.
    """
    files = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }
    descriptions = {name for name in files if "/" not in name and name.endswith(".json")}
    for part in (files.keys() - descriptions, descriptions):
        if part:
            out.upload({name: files[name] for name in sorted(part)})
