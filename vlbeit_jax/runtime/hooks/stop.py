"""Ends a run on SIGTERM and Ctrl-C, and asks for saves, after the same step on all processes."""

from collections.abc import Callable

from vlbeit_jax.errors import Exit
from vlbeit_jax.runtime import signals
from vlbeit_jax.runtime.hooks.base import Hook

REASONS: dict[int, str] = {Exit.PREEMPTED: "preempted", Exit.INTERRUPTED: "interrupted"}
SAVE = 1  # Less than every code of a signal.


class Stop(Hook):
    """Asks all processes at every step whether one of them got a signal, or wants to save."""

    def __init__(self, agree: Callable[[int], int], save_is_due: Callable[[], bool]):
        """Takes how processes agree.

        Args:
          agree: returns the largest number of all processes, given this one's.
          save_is_due: whether this process wants to save.
        """
        self._agree, self._save_is_due = agree, save_is_due
        self._wants = False  # This process has asked for a save that has not come yet.
        self._saves = self._missed = False

    def should_stop(self, step: int) -> str | None:
        """Returns the reason once the processes have agreed on one."""
        own: int = signals.asked() or Exit.DONE
        if not own and not self._wants and self._save_is_due():
            own, self._wants = SAVE, True
        agreed, missed = self._agree(own), self._missed
        self._saves, self._missed = agreed == SAVE or missed, False
        if self._saves:
            self._wants = False
        return REASONS.get(agreed)

    def agreed_to_save(self) -> bool:
        """Whether the processes have agreed to save after this step."""
        return self._saves

    def signalled(self) -> str | None:
        """Asks between two steps, and returns the reason to end that all agree on."""
        agreed = self._agree(signals.asked() or Exit.DONE)
        self._missed |= agreed == SAVE  # It was asked for before this call.
        return REASONS.get(agreed)
