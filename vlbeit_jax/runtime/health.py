"""What a run needs of a machine: each check says what it found, or raises what is wrong."""

import contextlib
import fcntl
import importlib.metadata
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from vlbeit_jax import places
from vlbeit_jax.data.source import open_set
from vlbeit_jax.errors import BadData, Exit, Reported, StorageError, UsageError
from vlbeit_jax.runtime import machine
from vlbeit_jax.storage import explains_storage
from vlbeit_jax.version import __version__

MIB = 2**20
SHARED_MEMORY = pathlib.Path("/dev/shm")
LEAST_SHARED = 256 * MIB  # What a run without loader processes needs at most (docs/launch.md).
LEAST_ROOM, WRITTEN = 200 * MIB, 16 * MIB  # Of the workdir.
SHOWN = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
SAME_AS_JAX = ("jaxlib", "jax-cuda13-plugin", "jax-cuda12-plugin")


class Finding(NamedTuple):
    """What a check has found.

    Attributes:
      name: of the check.
      said: what it found, or what is wrong and what to do.
      code: exit code of what is wrong; DONE if nothing is.
      seconds: it took.
    """

    name: str
    said: str
    code: Exit
    seconds: float


def examine(checks: dict[str, Callable[[], str]]) -> Iterator[Finding]:
    """Yields what each check finds; an error of a check is what is wrong, and ends no other."""
    for name, check in checks.items():
        began, code = time.monotonic(), Exit.DONE
        try:
            said = check()
        except Reported as error:
            said, code = str(error), error.code
        except Exception as error:  # Whatever is broken, the other checks go on.
            said, code = f"{type(error).__name__}: {error}", Exit.DEFECT
        yield Finding(name, said, code, time.monotonic() - began)


def versions() -> str:
    """Returns versions.

    Raises:
      UsageError: a package has another version than JAX, with which it is released.
    """
    releases = {each: _version(each) for each in (*SHOWN, *SAME_AS_JAX)}
    release = (releases["jax"] or "").split(".")[:2]
    for name in SAME_AS_JAX:
        if releases[name] and releases[name].split(".")[:2] != release:
            raise UsageError(
                f"{name} {releases[name]} does not belong to jax {releases['jax']}; install both "
                "again with launch/install.sh"
            )
    missing = [name for name in SHOWN if not releases[name]]
    if missing:
        raise UsageError(f"{', '.join(missing)} not installed; run launch/install.sh")
    named = ", ".join(f"{name} {releases[name]}" for name in SHOWN)
    return f"vlbeit_jax {__version__}, Python {machine.versions()['python']}, {named}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def processor() -> str:
    """Returns the host in words."""
    host = machine.host()
    return (
        f"{host['processor']}, {host['cores']} cores, {host['host_memory_gib']} GiB, "
        f"load {host['load_average']}"
    )


def shared_memory() -> str:
    """Returns the room in ``/dev/shm``, in which loader processes hand over their batches.

    Raises:
      UsageError: there is less than any run needs.
    """
    if not SHARED_MEMORY.is_dir():
        return f"{SHARED_MEMORY} does not exist here"
    free = shutil.disk_usage(SHARED_MEMORY).free
    if free < LEAST_SHARED:
        raise UsageError(
            f"{SHARED_MEMORY} has {free / MIB:,.0f} MiB free; loader processes need more, at least "
            f"{LEAST_SHARED / MIB:,.0f} MiB (python -m vlbeit_jax.shared_memory computes it). In "
            "Docker, give --shm-size; or set config.loader.workers=0"
        )
    return f"{free / MIB:,.0f} MiB free"


def workdir(folder: pathlib.Path) -> str:
    """Returns room and speed of the disk, or speed of the bucket, of a workdir. Nothing is left.

    Raises:
      UsageError: nothing can be written there.
      StorageError: there is little room, or the disk fails.
    """
    if not places.renames_folders(folder):
        return _speed_of_objects(folder)
    place = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not place.is_dir():
        raise UsageError(f"{place} is a file; name a folder")
    free = shutil.disk_usage(place).free
    if free < LEAST_ROOM:
        raise StorageError(
            f"{place} has {free / MIB:,.0f} MiB free; a checkpoint of base size takes 3,000 MiB; "
            "make room, or name a folder on another disk"
        )
    if not os.access(place, os.W_OK):
        raise UsageError(f"{place} cannot be written to; change its permissions, or name another")
    with explains_storage(place):
        speed = _write_speed(place)
    where = "" if place == folder else f" ({place}, in which it will be created)"
    return f"{folder}{where}: {free / 1e9:,.1f} GB free, writes {speed / 1e6:,.0f} MB/s"


def _speed_of_objects(folder: pathlib.Path) -> str:
    """Says how fast an object is written to a bucket, and that it is read as it was written."""
    trial, block = folder / f".trial.{os.getpid()}", os.urandom(MIB) * (WRITTEN // MIB)
    began = time.monotonic()
    with places.appearing(trial, "wb") as file:
        file.write(block)
    speed = len(block) / max(time.monotonic() - began, 1e-9)
    try:
        if trial.read_bytes() != block:
            raise StorageError(f"{folder} returns other bytes than were written; use another store")
    finally:
        trial.unlink(missing_ok=True)
    return f"{folder}: writes {speed / 1e6:,.0f} MB/s"


def _write_speed(place: pathlib.Path) -> float:
    """Returns bytes per second, of a file that has no name and so disappears by itself."""
    block = os.urandom(MIB)
    with tempfile.TemporaryFile(dir=place) as file:
        began = time.monotonic()
        for _ in range(WRITTEN // MIB):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        seconds = time.monotonic() - began
        with _explains_locks(place):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.seek(0)
        if any(file.read(MIB) != block for _ in range(WRITTEN // MIB)):
            raise StorageError(f"{place} returns other bytes than were written; use another disk")
    return WRITTEN / max(seconds, 1e-9)


@contextlib.contextmanager
def _explains_locks(place: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{place} has no file locks ({error}), which keep two runs out of one folder; mount it "
            "with locks, or use another disk"
        ) from error


def data_set(place: str) -> str:
    """Returns what a prepared set holds, after reading records at its ends.

    Raises:
      UsageError: it is no prepared set, or not the one that was written.
      BadData: a record cannot be read.
    """
    try:
        prepared = open_set(place)
        for split in prepared.meta["counts"]:
            records = prepared.records(split)
            for index in {0, len(records) // 2, len(records) - 1}:
                records[index]
    except Reported:
        raise
    except Exception as error:  # Of whichever library reads the files.
        said = f"{type(error).__name__}: {error}"
        raise BadData(
            f"{place}: cannot be read ({said}); copy the set again, or prepare it again"
        ) from error
    counts = ", ".join(f"{split} {count:,}" for split, count in prepared.meta["counts"].items())
    return f"{place}: {prepared.kind} ({counts}), fingerprint {prepared.fingerprint}"
