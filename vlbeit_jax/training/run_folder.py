"""A run's folder: its configuration, and its checkpoints."""

import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from vlbeit_jax.config import Config
from vlbeit_jax.config_parse import parse, to_dict
from vlbeit_jax.errors import UsageError
from vlbeit_jax.training.checkpoint import Checkpointer

CONFIG_FILE, CHECKPOINTS, METRICS_FILE = "config.json", "checkpoints", "metrics.jsonl"
Tree = Any


def claim(folder: pathlib.Path) -> None:
    """Makes the folder of a new run, or accepts that of an earlier start.

    Raises:
      UsageError: it cannot be written to, or it holds files of something else.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UsageError(f"--workdir={folder}: cannot be written to ({error})") from error
    if any(folder.iterdir()) and not (folder / CONFIG_FILE).is_file():
        raise UsageError(f"--workdir={folder}: holds files but no {CONFIG_FILE}, so it is no run's folder; name another one")


def write_config(folder: pathlib.Path, config: Config) -> None:
    """Leaves the whole configuration in the folder."""
    written = folder / f".{CONFIG_FILE}.tmp"
    written.write_text(json.dumps(to_dict(config), indent=1) + "\n")
    written.replace(folder / CONFIG_FILE)


def read_config(folder: pathlib.Path) -> Config:
    """The configuration of a run.

    Raises:
      UsageError: the folder is no run's.
    """
    try:
        text = (folder / CONFIG_FILE).read_text()
    except OSError as error:
        raise UsageError(f"{folder} is no run's folder: {error}; name the --workdir of a run") from error
    return parse(json.loads(text))


def finished_step(folder: pathlib.Path, config: Config) -> int:
    """The last checkpoint of a run that has taken all its steps.

    Raises:
      UsageError: there is no checkpoint, or the run has not finished.
    """
    checkpointer = Checkpointer(folder / CHECKPOINTS, read_only=True) if (folder / CHECKPOINTS).is_dir() else None
    step = checkpointer.latest() if checkpointer else None
    if step is None or step < config.run.steps:
        raise UsageError(f"the run in {folder} has reached step {step or 0} of {config.run.steps}; let it finish first")
    return step


def restore(folder: pathlib.Path, step: int, abstract: Mapping[str, Tree]) -> dict[str, Tree]:
    """Trees of one step of a run."""
    checkpointer = Checkpointer(folder / CHECKPOINTS, read_only=True)
    found = checkpointer.restore(step, abstract)
    checkpointer.close()
    return found


def tree_fingerprint(tree: Tree) -> str:
    """Twelve hex digits over names and bytes of every array."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        digest.update(jax.tree_util.keystr(path).encode() + np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:12]
