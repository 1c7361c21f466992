"""Starts a run with the parameters of another run or of an import (``run.start_from``)."""

import contextlib
import pathlib
from typing import Any

from vlbeit_jax.errors import UsageError
from vlbeit_jax.training.checkpoint import Checkpointer, check_shapes
from vlbeit_jax.training.saved_run import CHECKPOINTS, newest_step, read_config

Tree = Any


def check_start(folder: pathlib.Path, abstract: Tree) -> int:
    """Checks that a run's newest parameters have the shapes of ``abstract``; returns their step.

    Raises:
      UsageError: there are no parameters, or they belong to another model; the message lists every
        difference.
    """
    read_config(folder)
    step = newest_step(folder)
    if step is None:
        raise UsageError(f"run.start_from={folder}: the run has no checkpoint yet")
    with contextlib.closing(Checkpointer(folder / CHECKPOINTS, read_only=True)) as checkpointer:
        saved = checkpointer.leaves(step, "params").shapes
    check_shapes(saved, abstract, f"run.start_from={folder} holds another model")
    return step


def starting_params(folder: pathlib.Path, abstract: Tree) -> Tree:
    """Returns these parameters in the shardings of ``abstract``; raises as ``check_start`` does."""
    step = check_start(folder, abstract)
    with contextlib.closing(Checkpointer(folder / CHECKPOINTS, read_only=True)) as checkpointer:
        return checkpointer.restore(step, {"params": abstract})["params"]
