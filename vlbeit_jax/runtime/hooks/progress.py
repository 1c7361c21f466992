"""Records in the run's history how far this start has come."""

import contextlib
import socket
from collections.abc import Iterator

from vlbeit_jax.errors import Exit
from vlbeit_jax.runtime.devices import devices
from vlbeit_jax.runtime.ending import noting
from vlbeit_jax.runtime.history import ENDED, SAVED, STARTED, History
from vlbeit_jax.runtime.hooks.base import Hook
from vlbeit_jax.runtime.run import Run
from vlbeit_jax.runtime.timer import Timer
from vlbeit_jax.runtime.versions import versions
from vlbeit_jax.training.state import TrainState

LONGEST = 200  # Characters of an error in the history.


class Progress(Hook):
    """Knows the last step, and writes a line for each save."""

    def __init__(self, history: History, timer: Timer, step: int):
        """Takes the history and the timer of a run, and the step at which it starts."""
        self._history, self._timer = history, timer
        self.step, self.newest = step, step

    def after_step(self, step: int, state: TrainState, ending: str | None) -> None:
        """Notes the step."""
        self.step = step

    def saved(self, step: int) -> None:
        """Adds a line once a step is on disk."""
        self.newest = step
        self._history.add(SAVED, {"step": step, "seconds": self._timer.totals()})


@contextlib.contextmanager
def recorded(history: History, run: Run, start: int, timer: Timer) -> Iterator[Progress]:
    """Adds a line before and after its body, which takes the steps of a run.

    Args:
      history: of the run.
      run: that starts.
      start: steps taken before.
      timer: of this start.
    """
    hosts = run.hosts.gathered(socket.gethostname())
    facts = {"step": start, "hosts": hosts, "mesh": dict(run.mesh.shape), "devices": devices()}
    history.add(STARTED, {**facts, "versions": versions()})
    made = Progress(history, timer, start)

    def add_end(said: str, code: int) -> None:
        ended = "finished" if code == Exit.DONE else _ended(said, code)
        facts = {"step": made.step, "saved": made.newest, "ended": ended, "code": code}
        history.add(ENDED, {**facts, "seconds": timer.totals()})

    said, code = "", int(Exit.DONE)
    try:
        with noting(add_end):
            yield made
    except BaseException as error:
        said, code = repr(error), int(getattr(error, "code", Exit.DEFECT))
        raise
    finally:
        add_end(said, code)


def _ended(said: str, code: int) -> str:
    """Returns how a start has ended, in a word or two."""
    if code == Exit.DEFECT:
        return f"failed: {said}"[:LONGEST]
    return Exit(code).name.lower().replace("_", " ")
