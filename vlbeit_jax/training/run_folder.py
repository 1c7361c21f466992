"""A run's folder: its configuration, and its checkpoints."""

import fcntl
import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from vlbeit_jax.config import Config
from vlbeit_jax.config_parse import parse, to_dict
from vlbeit_jax.errors import UsageError
from vlbeit_jax.training.checkpoint import Checkpointer, check_shapes

CONFIG_FILE, CHECKPOINTS, METRICS_FILE, LOCK_FILE = (
    "config.json",
    "checkpoints",
    "metrics.jsonl",
    ".lock",
)
IMPORTED_STEP = 1  # An import counts as a run of one step that is finished.
Tree = Any


@contextmanager
def claimed(folder: pathlib.Path) -> Iterator[None]:
    """Makes the folder of a new run, or accepts that of an earlier start, and keeps other processes out of it.

    Raises:
      UsageError: it cannot be written to, it holds files of something else, or another process is at work in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        foreign = (
            any(path.name != LOCK_FILE for path in folder.iterdir())
            and not (folder / CONFIG_FILE).is_file()
        )
        lock = None if foreign else (folder / LOCK_FILE).open("w")
    except OSError as error:
        raise UsageError(f"--workdir={folder}: cannot be written to ({error})") from error
    if lock is None:
        raise UsageError(
            f"--workdir={folder}: holds files but no {CONFIG_FILE}, so it is no run's folder; name another one"
        )
    with lock:  # The system lets go of the lock however the process ends.
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"--workdir={folder}: another process trains in it; let it finish, or name another folder"
            ) from error
        yield


def write_config(folder: pathlib.Path, config: Config) -> None:
    """Leaves the whole configuration in the folder."""
    written = folder / f".{CONFIG_FILE}.tmp"
    written.write_text(json.dumps(to_dict(config), indent=1) + "\n")
    written.replace(folder / CONFIG_FILE)


def read_config(folder: pathlib.Path) -> Config:
    """The configuration of a run.

    Raises:
      UsageError: the folder is no run's, or the configuration in it cannot be read.
    """
    try:
        values = json.loads((folder / CONFIG_FILE).read_text())
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{folder} is no run's folder: {CONFIG_FILE}: {error}; name the --workdir of a run"
        ) from error
    return parse(values, to_train=False)


def finished_step(folder: pathlib.Path, config: Config) -> int:
    """The last checkpoint of a run that has taken all its steps.

    Raises:
      UsageError: there is no checkpoint, or the run has not finished.
    """
    checkpointer = (
        Checkpointer(folder / CHECKPOINTS, read_only=True)
        if (folder / CHECKPOINTS).is_dir()
        else None
    )
    step = checkpointer.latest() if checkpointer else None
    if step is None or step < config.run.steps:
        raise UsageError(
            f"the run in {folder} has reached step {step or 0} of {config.run.steps}; let it finish first"
        )
    return step


def restore(folder: pathlib.Path, step: int, abstract: Mapping[str, Tree]) -> dict[str, Tree]:
    """Trees of one step of a run, in the shapes of ``abstract`` and on one device of this process."""
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    checkpointer = Checkpointer(folder / CHECKPOINTS, read_only=True)
    found = checkpointer.restore(
        step,
        jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), abstract
        ),
    )
    checkpointer.close()
    return found


def check_start(folder: pathlib.Path, abstract: Tree) -> tuple[Checkpointer, int]:
    """Where the newest parameters of a run or an import lie, if they have the shapes of ``abstract``.

    Raises:
      UsageError: there are none, or they are of another model; every difference is listed.
    """
    read_config(folder)
    checkpointer = (
        Checkpointer(folder / CHECKPOINTS, read_only=True)
        if (folder / CHECKPOINTS).is_dir()
        else None
    )
    step = checkpointer.latest() if checkpointer else None
    if checkpointer is None or step is None:
        raise UsageError(f"run.start_from={folder}: has no checkpoint yet")
    check_shapes(
        checkpointer.leaves(step, "params").shapes,
        abstract,
        f"run.start_from={folder} holds another model",
    )
    return checkpointer, step


def starting_params(folder: pathlib.Path, abstract: Tree) -> Tree:
    """These parameters, in the shardings of ``abstract``; raises as ``check_start``."""
    checkpointer, step = check_start(folder, abstract)
    return checkpointer.restore(step, {"params": abstract})["params"]


def tree_fingerprint(tree: Tree) -> str:
    """Twelve hex digits over names and bytes of every array."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        digest.update(jax.tree_util.keystr(path).encode() + np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:12]
