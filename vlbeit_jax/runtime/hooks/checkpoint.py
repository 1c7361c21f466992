"""Saves checkpoints."""

from collections.abc import Callable, Mapping
from typing import Any

from vlbeit_jax.runtime.hooks.base import Hook
from vlbeit_jax.runtime.timer import Timer
from vlbeit_jax.training.checkpoint import Checkpointer
from vlbeit_jax.training.state import TrainState


class Checkpoint(Hook):
    """Saves every so many steps, and whenever the run ends."""

    def __init__(
        self,
        checkpointer: Checkpointer,
        describe: Callable[[int], Mapping[str, Any]],
        timer: Timer,
        every: int,
    ):
        """Saves with ``checkpointer``, which the caller closes.

        Args:
          checkpointer: of the run.
          describe: description of the checkpoint of a step.
          timer: told how long a save holds up the loop.
          every: steps between checkpoints.
        """
        self._checkpointer, self._describe = checkpointer, describe
        self._timer, self._every = timer, every

    def after_step(self, step: int, state: TrainState, ending: str | None) -> None:
        """Starts a save if one is due.

        It does not wait for the step's metrics: a step that is not finite has changed nothing.
        """
        if ending or step % self._every == 0:
            with self._timer.waiting("checkpoint"):
                self._checkpointer.save(step, state.saved(), self._describe(step))

    def close(self) -> None:
        """Waits until the saves are on disk."""
        self._checkpointer.wait()
