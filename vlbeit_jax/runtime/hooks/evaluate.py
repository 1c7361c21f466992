"""Evaluates on held-back data during training."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from vlbeit_jax.runtime.hooks.base import FINISHED, Hook
from vlbeit_jax.runtime.timer import Timer
from vlbeit_jax.runtime.writer import Writer
from vlbeit_jax.tasks.base import Evaluator
from vlbeit_jax.training.state import TrainState

Tree = Any
# Names of the lines of figures.
VALIDATION, VALIDATION_EMA = "validation", "validation_ema"


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
    ):
        """Takes what the evaluators need.

        Args:
          evaluators: of the task.
          frozen: parameters, on the devices.
          writer: of the run.
          timer: of the run.
          ema: whether the state has averaged parameters.
        """
        self._evaluators, self._frozen = evaluators, frozen
        self._writer, self._timer, self._ema = writer, timer, ema

    def after_step(self, step: int, state: TrainState, ending: str | None) -> None:
        """Runs the evaluators that are due."""
        for evaluator in self._evaluators:
            if evaluator.every and (step % evaluator.every == 0 or ending == FINISHED):
                self._run(evaluator, step, state, VALIDATION)
                if self._ema:
                    averaged = dataclasses.replace(state, params=state.averaged_params)
                    self._run(evaluator, step, averaged, VALIDATION_EMA)

    def _run(self, evaluator: Evaluator, step: int, state: TrainState, split: str) -> None:
        with self._timer.waiting("evaluation"):
            figures = evaluator.run(state, self._frozen)
            prefix = f"{evaluator.name}/" if evaluator.name else ""
            line = {f"{prefix}{name}": value for name, value in figures.items()}
            self._writer.write(step, split, line)
