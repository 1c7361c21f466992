"""Records a trace of some steps."""

import pathlib

import jax

from vlbeit_jax.runtime.hooks.base import Hook


class Profile(Hook):
    """Traces steps, for XProf or TensorBoard."""

    def __init__(self, folder: pathlib.Path, first: int, end: int):
        """Traces the steps after ``first`` steps and before ``end`` steps, into ``folder``."""
        self._folder, self._first, self._end = folder, first, end
        self._tracing = False

    def before_step(self, index: int) -> None:
        """Starts or ends the trace."""
        if index == self._first:
            jax.profiler.start_trace(self._folder)
            self._tracing = True
        elif index >= self._end:
            self.close()

    def close(self) -> None:
        """Ends the trace if it is running."""
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()
