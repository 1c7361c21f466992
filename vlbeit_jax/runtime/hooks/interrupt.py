"""Handles Ctrl-C."""

import signal
import threading
from typing import Any

from vlbeit_jax.runtime.hooks.base import Hook


class Interrupt(Hook):
    """Defers the first Ctrl-C to the end of the current step. A second one interrupts immediately.

    A KeyboardInterrupt that is raised anywhere may end up in a callback or a finaliser, where
    Python drops it.
    """

    def __init__(self):
        """Installs the handler; outside the main thread, Python allows none."""
        self._asked = threading.Event()
        self._installed = threading.current_thread() is threading.main_thread()
        if self._installed:
            self._before = signal.signal(signal.SIGINT, self._note)

    def before_step(self, index: int) -> None:
        """Raises the deferred interrupt.

        Raises:
          KeyboardInterrupt: the user pressed Ctrl-C during the last step.
        """
        if self._asked.is_set():
            raise KeyboardInterrupt

    def close(self) -> None:
        """Puts the previous handler back."""
        if self._installed:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, *_: Any) -> None:
        if self._asked.is_set():
            raise KeyboardInterrupt
        self._asked.set()
