"""Writes the metrics of training."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from vlbeit_jax.cost.flops import StepFlops
from vlbeit_jax.runtime.hooks.base import Hook
from vlbeit_jax.runtime.hooks.divergence import not_finite
from vlbeit_jax.runtime.timer import Timer
from vlbeit_jax.runtime.writer import Writer
from vlbeit_jax.training.state import TrainState

# Metrics that are counted, not averaged, between two lines.
COUNTED = {"refused"}


class Log(Hook):
    """Writes the mean of each metric since the last line, with throughput and waiting times."""

    def __init__(
        self,
        writer: Writer,
        timer: Timer,
        *,
        every: int,
        learning_rate: Callable[[int], Any],
        work: Callable[[int], StepFlops],
        chance: Mapping[str, float],
        contributed: Callable[[int], Mapping[str, float]] = lambda step: {},
    ):
        """Writes lines with ``writer``.

        Args:
          writer: of the run.
          timer: told the work of every step.
          every: steps between lines.
          learning_rate: of the step after a number of steps. Every step asks for one while the next
            step runs, so it must not use a device.
          work: of the step after a number of steps.
          chance: accuracy of a guess without input, by term; written beside the accuracy.
          contributed: figures of the data sets after a number of steps.
        """
        self._writer, self._timer, self._every = writer, timer, every
        self._learning_rate, self._work, self._chance = learning_rate, work, chance
        self._contributed = contributed
        self._sums: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds a step's metrics to the next line."""
        rate = float(self._learning_rate(step - 1))
        refused = bool(not_finite(metrics))
        for name, value in {**metrics, "learning_rate": rate}.items():
            # A refused step has changed nothing, and would make the mean NaN.
            counts = name in COUNTED or not refused
            self._sums[name] += value if counts else 0.0
            self._counts[name] += counts
        losses = [
            f"{name.removesuffix('/loss')} {value:.3f}"
            for name, value in metrics.items()
            if name.endswith("/loss")
        ]
        self._writer.progress(" ".join(losses))

    def needs_metrics(self, step: int) -> bool:
        """Returns whether a line is due, which then includes the step itself."""
        return step % self._every == 0

    def after_step(self, step: int, state: TrainState, ending: str | None) -> None:
        """Counts the step's work, and writes a line if one is due."""
        self._timer.count(self._work(step - 1))
        if ending or step % self._every == 0:
            self._write(step)

    def _write(self, step: int) -> None:
        line = {
            name: total if name in COUNTED else _mean(total, self._counts[name])
            for name, total in self._sums.items()
        }
        self._sums.clear()
        self._counts.clear()
        line |= self._timer.summary() | dict(self._contributed(step))
        for name in [name for name in line if name.endswith("/accuracy")]:
            term = name.removesuffix("/accuracy")
            if term in self._chance:
                line[f"{term}/chance"] = self._chance[term]
        self._writer.write(step, "train", line)


def _mean(total: float, count: int) -> float:
    return total / count if count else math.nan
