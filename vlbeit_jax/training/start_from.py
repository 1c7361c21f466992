"""Starts a run with the parameters of another run or of an import (``run.start_from``)."""

import contextlib
import dataclasses
import pathlib
from typing import Any

import jax

from vlbeit_jax.errors import UsageError
from vlbeit_jax.shapes import Tree
from vlbeit_jax.training.checkpoint import Checkpointer
from vlbeit_jax.training.param_names import leaf_name
from vlbeit_jax.training.saved_run import CHECKPOINTS, newest_step
from vlbeit_jax.training.start_report import describe, listed
from vlbeit_jax.training.warm_start import (
    Assignment,
    Origin,
    WarmStart,
    apply_plan,
    plan_warm_start,
)


@dataclasses.dataclass(frozen=True)
class Start:
    """A checkpoint that fits a model, and what each parameter takes from it.

    Attributes:
      folder: of the run or import.
      step: of the checkpoint.
      plan: an assignment for each parameter of the model.
      names: of all parameters in the checkpoint.
    """

    folder: pathlib.Path
    step: int
    plan: tuple[Assignment, ...]
    names: tuple[str, ...]

    @classmethod
    def open(cls, folder: pathlib.Path, abstract: Tree, rules: WarmStart) -> "Start":
        """Plans a start from the newest checkpoint. Reads names and shapes, but no array.

        Args:
          folder: of the run or import.
          abstract: shapes of the model's parameters.
          rules: what may differ.

        Raises:
          UsageError: there are no parameters, or they do not fit the model.
        """
        step = newest_step(folder)
        if step is None:
            raise UsageError(f"run.start_from={folder}: the run has no checkpoint yet")
        with _checkpoints(folder) as checkpointer:
            source = checkpointer.leaves(step, "params").shapes
        target = {
            leaf_name(path): tuple(leaf.shape)
            for path, leaf in jax.tree_util.tree_leaves_with_path(abstract)
        }
        plan = plan_warm_start(source, target, rules, start=f"run.start_from={folder}")
        return cls(folder, step, tuple(plan), tuple(source))

    @property
    def fresh(self) -> list[str]:
        """Names of the parameters that keep their random values."""
        return [each.name for each in self.plan if each.origin is Origin.FRESH]

    def load(self, params: Tree) -> Tree:
        """Returns the parameters to start with.

        Args:
          params: initial values, on their devices; the result is placed alike.

        Raises:
          UsageError: the checkpoint cannot be read, or has been removed by a run in progress.
        """
        with _checkpoints(self.folder) as checkpointer:
            if not (self.folder / CHECKPOINTS / str(self.step)).is_dir():
                raise UsageError(
                    f"run.start_from={self.folder}: the checkpoint of step {self.step} has just "
                    "been removed by a run in progress; run the same command again"
                )
            return apply_plan(self.plan, checkpointer.leaves(self.step, "params"), params)

    def report(self) -> dict[str, Any]:
        """Returns where every parameter comes from, and what the start was made of; for JSON."""
        with _checkpoints(self.folder) as checkpointer:
            description = checkpointer.describe(self.step)
        return {
            "from": str(self.folder),
            "step": self.step,
            "weights": "raw",  # Never the start's averaged parameters.
            "trained_on": description.get("trained_on", []),
            "imported_from": description.get("imported_from"),
            **listed(self.plan, self.names),
        }

    def __str__(self) -> str:
        title = f"starts from the parameters of {self.folder}, step {self.step}"
        return f"{title}: {describe(self.plan, self.names)}"


def _checkpoints(folder: pathlib.Path) -> contextlib.closing[Checkpointer]:
    return contextlib.closing(Checkpointer(folder / CHECKPOINTS, read_only=True))
