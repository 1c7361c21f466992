"""Evaluates on held-back data during training."""

from collections.abc import Sequence
from typing import Any

from vlbeit_jax.runtime.hooks.base import FINISHED, Hook
from vlbeit_jax.runtime.timer import Timer
from vlbeit_jax.runtime.writer import Writer
from vlbeit_jax.tasks.base import Evaluator
from vlbeit_jax.training.state import TrainState

Tree = Any


class Evaluate(Hook):
    """Runs evaluators on their periods and at the end of a finished run.

    It does not run when another hook stops the run: there may be little time left then.
    """

    def __init__(self, evaluators: Sequence[Evaluator], frozen: Tree, writer: Writer, timer: Timer):
        """Args: ``frozen``, parameters on the devices; ``writer`` and ``timer`` of the run."""
        self._evaluators, self._frozen = evaluators, frozen
        self._writer, self._timer = writer, timer

    def after_step(self, step: int, state: TrainState, ending: str | None) -> None:
        """Runs the evaluators that are due."""
        for evaluator in self._evaluators:
            if evaluator.every and (step % evaluator.every == 0 or ending == FINISHED):
                with self._timer.waiting("evaluation"):
                    figures = evaluator.run(state, self._frozen)
                    prefix = f"{evaluator.name}/" if evaluator.name else ""
                    line = {f"{prefix}{name}": value for name, value in figures.items()}
                    self._writer.write(step, "validation", line)
