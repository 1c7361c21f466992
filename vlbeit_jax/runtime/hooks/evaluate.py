"""Evaluates on held-out data during training."""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from vlbeit_jax import progress
from vlbeit_jax.runtime import watchdog
from vlbeit_jax.runtime.hooks.base import FINISHED, Hook
from vlbeit_jax.runtime.timer import Timer
from vlbeit_jax.runtime.writer import Writer
from vlbeit_jax.shapes import Tree
from vlbeit_jax.tasks.base import Evaluator
from vlbeit_jax.training.state import TrainState

# Names of the lines of figures.
VALIDATION, VALIDATION_EMA = "validation", "validation_ema"


def due_after(
    step: int, evaluators: Sequence[Evaluator], ending: str | None = None
) -> list[Evaluator]:
    """Returns the evaluators that run after a step; see ``Hook.after_step`` for ``ending``."""
    if ending not in (None, FINISHED):
        return []
    periodic = [each for each in evaluators if each.every]
    return [each for each in periodic if ending == FINISHED or step % each.every == 0]


class Written(NamedTuple):
    """Which figures of a step there are.

    Attributes:
      evaluator: its name.
      split: of the parameters that it ran on, ``VALIDATION`` or ``VALIDATION_EMA``.
    """

    evaluator: str
    split: str


class Abandoned(Exception):
    """A signal has come during an evaluation. Every process raises it at the same batch.

    Attributes:
      step: that was evaluated.
      reason: to end, as ``Hook.should_stop`` returns it.
    """

    def __init__(self, step: int, reason: str):
        """Takes the step and the reason."""
        super().__init__(reason)
        self.step, self.reason = step, reason


class Evaluate(Hook):
    """Runs evaluators on their periods and at the end of a finished run.

    If the run keeps averaged parameters, each evaluator also runs on them.

    It does not run when another hook stops the run: there may be little time left then. The run
    makes up for it when it resumes (``runtime/missing_evaluation.py``).
    """

    def __init__(
        self,
        evaluators: Sequence[Evaluator],
        frozen: Tree,
        writer: Writer,
        timer: Timer,
        *,
        ema: bool = False,
        stopping: Callable[[], str | None] = lambda: None,
        written: Collection[Written] = (),
    ):
        """Takes what the evaluators need.

        Args:
          evaluators: of the task.
          frozen: parameters, on the devices.
          writer: of the run.
          timer: of the run.
          ema: whether the state has averaged parameters.
          stopping: returns at each batch why the evaluation must be abandoned, or None. All
            processes get the same answer.
          written: figures that are not computed again.
        """
        self._written = written
        self._evaluators, self._frozen, self._stopping = evaluators, frozen, stopping
        self._writer, self._timer, self._ema = writer, timer, ema

    def after_step(self, step: int, state: TrainState, ending: str | None) -> None:
        """Runs the evaluators that are due.

        Raises:
          Abandoned: a signal has come.
        """

        def check() -> None:
            if reason := self._stopping():
                raise Abandoned(step, reason)

        with progress.checking(check):
            for evaluator in due_after(step, self._evaluators, ending):
                self._run_both(evaluator, step, state)

    def _run_both(self, evaluator: Evaluator, step: int, state: TrainState) -> None:
        self._run(evaluator, step, state, VALIDATION)
        if self._ema:
            averaged = dataclasses.replace(state, params=state.averaged_params)
            self._run(evaluator, step, averaged, VALIDATION_EMA)

    def _run(self, evaluator: Evaluator, step: int, state: TrainState, split: str) -> None:
        if Written(evaluator.name, split) in self._written:
            return
        with watchdog.patient("the run evaluates"), self._timer.waiting("evaluation"):
            figures = evaluator.run(state, self._frozen)
            prefix = f"{evaluator.name}/" if evaluator.name else ""
            line = {f"{prefix}{name}": value for name, value in figures.items()}
            self._writer.write(step, split, line)
