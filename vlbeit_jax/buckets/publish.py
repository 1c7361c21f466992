"""A folder in a bucket that readers take for whole only when it is."""

import contextlib
import pathlib
import tempfile
from collections.abc import Iterator

from vlbeit_jax.buckets.lease import leased
from vlbeit_jax.buckets.path import BucketPath
from vlbeit_jax.errors import UsageError


@contextlib.contextmanager
def uploaded(out: BucketPath) -> Iterator[pathlib.Path]:
    """A folder of this machine, whose files are in ``out`` when the body has ended.

    The descriptions (.json at the top) come last; without them no reader takes the folder for
    anything. A mark beside ``out`` says that it is not whole, so that a process that takes the
    place of a killed one removes what that one has left.

    Raises:
      BlockingIOError: another process writes it.
      UsageError: there is something at ``out``.
    """
    mark = out.with_name(f".{out.name}.incomplete")
    with leased(out.with_name(f".{out.name}.lock")):
        if mark.exists():
            out.rmtree()
        elif out.exists():
            raise UsageError(f"{out} exists already; name another folder or remove it")
        try:
            with tempfile.TemporaryDirectory() as folder:
                yield pathlib.Path(folder)
                mark.write_bytes(b"")
                _upload(pathlib.Path(folder), out)
        except BaseException:
            if mark.exists():
                out.rmtree()
            raise
        finally:
            mark.unlink(missing_ok=True)


def _upload(folder: pathlib.Path, out: BucketPath) -> None:
    files = {
        path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }
    descriptions = {name for name in files if "/" not in name and name.endswith(".json")}
    for part in (files.keys() - descriptions, descriptions):
        if part:
            out.upload({name: files[name] for name in sorted(part)})
