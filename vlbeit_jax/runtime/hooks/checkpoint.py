"""Saves checkpoints."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from vlbeit_jax.runtime import watchdog
from vlbeit_jax.runtime.hooks.base import Hook
from vlbeit_jax.runtime.timer import Timer
from vlbeit_jax.training.checkpoint import Checkpointer
from vlbeit_jax.training.state import TrainState

MINUTE = 60.0
SAVES = "the run saves"


class Checkpoint(Hook):
    """Saves every so many steps, when it is asked to, and whenever the run ends."""

    def __init__(
        self,
        checkpointer: Checkpointer,
        describe: Callable[[int], Mapping[str, Any]],
        timer: Timer,
        every: int,
        *,
        minutes: float = 0.0,
        asked: Callable[[], bool] = lambda: False,
        before: Callable[[int], bool] = lambda step: False,
        on_saved: Callable[[int], None] = lambda step: None,
        alone: bool = False,
    ):
        """Saves with ``checkpointer``, which the caller closes.

        Args:
          checkpointer: of the run.
          describe: description of the checkpoint of a step.
          timer: told how long a save holds up the loop.
          every: steps between checkpoints.
          minutes: after which a save is due; 0: never.
          asked: whether all processes have agreed to save.
          before: whether what follows a step may fail, on any process, so that the step has to be
            saved first. All processes get the same answer.
          on_saved: called with a step once it is on disk.
          alone: whether this is the only process of the run, so that it can save at any time.
        """
        self._checkpointer, self._describe = checkpointer, describe
        self._timer, self._every, self._minutes = timer, every, minutes
        self._asked, self._before, self._on_saved = asked, before, on_saved
        self._last, self._alone = time.monotonic(), alone
        self._writing: int | None = None

    def is_due(self) -> bool:
        """Whether so many minutes have passed since the last save. Clocks of processes differ."""
        waited = time.monotonic() - self._last
        return bool(self._minutes) and waited >= self._minutes * MINUTE

    def after_step(self, step: int, state: TrainState, ending: str | None) -> None:
        """Starts a save if one is due.

        It does not wait for the step's metrics: a step that is not finite has changed nothing.

        Raises:
          StorageError: an earlier save has failed.
        """
        self._note_saved(self._checkpointer.check)
        if ending or step % self._every == 0 or self._asked() or self._before(step):
            self.save(step, state)

    def before_failure(self, step: int, state: TrainState) -> None:
        """Saves the step, unless other processes of the run would have to save it too."""
        if self._alone:
            self._note_saved(self._checkpointer.wait)
            if step > (self._checkpointer.latest() or 0):
                self.save(step, state)

    def save(self, step: int, state: TrainState) -> None:
        """Starts a save, after the one before has ended."""
        with watchdog.patient(SAVES), self._timer.waiting("checkpoint"):
            self._note_saved(self._checkpointer.wait)
            self._checkpointer.save(step, state.saved(), self._describe(step))
        self._writing, self._last = step, time.monotonic()

    def close(self) -> None:
        """Waits until the saves are on disk."""
        with watchdog.patient(SAVES):
            self._note_saved(self._checkpointer.wait)

    def _note_saved(self, check: Callable[[], bool]) -> None:
        """Notes the last save if ``check`` finds it on disk. A save that failed does not count."""
        step, self._writing = self._writing, None
        done = check()
        if step is not None and done:
            self._on_saved(step)
        elif not done:
            self._writing = step
