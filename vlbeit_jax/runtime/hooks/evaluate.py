"""Evaluates on held-back data during training."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from vlbeit_jax import progress
from vlbeit_jax.runtime import watchdog
from vlbeit_jax.runtime.hooks.base import FINISHED, Hook
from vlbeit_jax.runtime.timer import Timer
from vlbeit_jax.runtime.writer import Writer
from vlbeit_jax.tasks.base import Evaluator
from vlbeit_jax.training.state import TrainState

Tree = Any
# Names of the lines of figures.
VALIDATION, VALIDATION_EMA = "validation", "validation_ema"


class _Abandoned(Exception):
    """A signal has come during an evaluation."""


class Evaluate(Hook):
    """Runs evaluators on their periods and at the end of a finished run.

    If the run keeps averaged parameters, each evaluator also runs on them.

    It does not run when another hook stops the run: there may be little time left then.
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
        """
        self._evaluators, self._frozen, self._stopping = evaluators, frozen, stopping
        self.abandoned: str | None = None  # Why the last evaluation was.
        self._writer, self._timer, self._ema = writer, timer, ema

    def after_step(self, step: int, state: TrainState, ending: str | None) -> None:
        """Runs the evaluators that are due, until a signal comes."""
        if ending not in (None, FINISHED):
            return
        try:
            with progress.checking(self._check):
                for evaluator in self._evaluators:
                    if evaluator.every and (step % evaluator.every == 0 or ending == FINISHED):
                        self._run_both(evaluator, step, state)
        except _Abandoned as reason:
            self.abandoned = str(reason)
            self._writer.say(
                f"step {step}: a signal has come; the run abandons the evaluation, saves and ends"
            )

    def _check(self) -> None:
        if reason := self._stopping():
            raise _Abandoned(reason)

    def _run_both(self, evaluator: Evaluator, step: int, state: TrainState) -> None:
        self._run(evaluator, step, state, VALIDATION)
        if self._ema:
            averaged = dataclasses.replace(state, params=state.averaged_params)
            self._run(evaluator, step, averaged, VALIDATION_EMA)

    def _run(self, evaluator: Evaluator, step: int, state: TrainState, split: str) -> None:
        with watchdog.patient("the run evaluates"), self._timer.waiting("evaluation"):
            figures = evaluator.run(state, self._frozen)
            prefix = f"{evaluator.name}/" if evaluator.name else ""
            line = {f"{prefix}{name}": value for name, value in figures.items()}
            self._writer.write(step, split, line)
