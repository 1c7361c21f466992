"""Reads the checkpoints in the folder of a run. Never writes to it."""

import contextlib
import hashlib
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np

from vlbeit_jax.errors import Damaged, UsageError
from vlbeit_jax.shapes import Tree
from vlbeit_jax.training.checkpoint import Checkpointer

CONFIG_FILE, CHECKPOINTS, METRICS_FILE = "config.json", "checkpoints", "metrics.jsonl"
DAMAGED = "checkpoints.damaged"  # Steps that could not be restored.
ROLLED_BACK = "checkpoints.rolled_back"  # Steps of a run that has diverged since.
START_FILE = "start.json"  # What each parameter of a run has begun with.
IMPORTED_STEP = 1  # Imported weights look like a finished run of one step.
Result = TypeVar("Result")


def newest_step(folder: pathlib.Path) -> int | None:
    """Returns the step of a run's newest complete checkpoint; None if it has none."""
    if not (folder / CHECKPOINTS).is_dir():
        return None
    with contextlib.closing(Checkpointer(folder / CHECKPOINTS, read_only=True)) as checkpointer:
        return checkpointer.latest()


def read_newest(
    folder: pathlib.Path, read: Callable[[int], Result], step: int = 0
) -> tuple[int, Result]:
    """Returns the newest step that can be read, and what ``read`` returns of it.

    Damaged steps stay where they are; the standard error output names them.

    Args:
      folder: of the run.
      read: reads a step.
      step: to read, and no other; 0: the newest one.

    Raises:
      Damaged: this step is damaged, or every step is.
      UsageError: there is no checkpoint, or not this one.
    """
    steps = Checkpointer(folder / CHECKPOINTS, read_only=True).steps()
    if not steps:
        raise UsageError(f"the run in {folder} has no checkpoint yet")
    if step and step not in steps:
        raise UsageError(
            f"the run in {folder} has no checkpoint of step {step}; it has those of "
            f"{', '.join(map(str, steps))}"
        )
    damages = []
    for each in [step] if step else reversed(steps):
        try:
            trees = read(each)
        except Damaged as error:
            if step:
                raise
            damages.append(str(error))
            continue
        for damage in damages:
            print(f"warning: {damage}; step {each} is read instead", file=sys.stderr)
        return each, trees
    raise Damaged("\n".join([f"no checkpoint of {folder} can be read:", *damages]))


def finished_step(folder: pathlib.Path, steps: int) -> int:
    """Returns the step of the last checkpoint of a run that has reached ``steps``.

    Raises:
      UsageError: the run has not finished.
    """
    step = newest_step(folder)
    if step is None or step < steps:
        raise UsageError(
            f"the run in {folder} has reached step {step or 0} of {steps}; let it finish first"
        )
    return step


def trained_on(folder: pathlib.Path, step: int) -> frozenset[str]:
    """Returns the fingerprints of the data that a checkpoint of a run was trained on."""
    with contextlib.closing(Checkpointer(folder / CHECKPOINTS, read_only=True)) as checkpointer:
        return frozenset(checkpointer.describe(step)["trained_on"])


def identity(folder: pathlib.Path) -> dict[str, Any]:
    """Returns what must match when a run resumes, by name; empty for an import."""
    step = newest_step(folder)
    if step is None:
        return {}
    with contextlib.closing(Checkpointer(folder / CHECKPOINTS, read_only=True)) as checkpointer:
        return checkpointer.describe(step).get("must_match", {})


def restore(folder: pathlib.Path, step: int, abstract: Mapping[str, Tree]) -> dict[str, Tree]:
    """Returns trees of one checkpoint of a run, on the first device of this process.

    Args:
      folder: of the run.
      step: of the checkpoint.
      abstract: shapes and types, by the name of the tree in the checkpoint.
    """
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    placed = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), abstract
    )
    with contextlib.closing(Checkpointer(folder / CHECKPOINTS, read_only=True)) as checkpointer:
        return checkpointer.restore(step, placed)


def has_tree(folder: pathlib.Path, step: int, name: str) -> bool:
    """Whether a checkpoint of a run has a tree, such as averaged parameters."""
    return Checkpointer(folder / CHECKPOINTS, read_only=True).step(step).has(name)


def tree_fingerprint(tree: Tree) -> str:
    """Returns twelve hexadecimal digits of a hash over names and bytes of every array."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        digest.update(jax.tree_util.keystr(path).encode() + np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:12]
