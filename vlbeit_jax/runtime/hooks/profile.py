"""Records a trace of some steps."""

import contextlib
import pathlib

import jax

from vlbeit_jax.copies import filled
from vlbeit_jax.runtime.hooks.base import Hook


class Profile(Hook):
    """Traces steps, for XProf or TensorBoard."""

    def __init__(self, folder: pathlib.Path, first: int, end: int):
        """Traces the steps after ``first`` steps and before ``end`` steps, into ``folder``."""
        self._folder, self._first, self._end = folder, first, end
        self._tracing: contextlib.ExitStack | None = None

    def before_step(self, index: int) -> None:
        """Starts or ends the trace."""
        if index == self._first:
            self._tracing = contextlib.ExitStack()
            jax.profiler.start_trace(self._tracing.enter_context(filled(self._folder)))
        elif index >= self._end:
            self.close()

    def close(self) -> None:
        """Ends the trace if it is running."""
        tracing, self._tracing = self._tracing, None
        if tracing is not None:
            with tracing:
                jax.profiler.stop_trace()
