"""Ends a process of a run that is alive and does nothing.

A process may wait for ever: for a lock, for storage that does not answer, or for another process
that does. So a thread waits for signs of progress (``beat``): a finished step, an evaluated batch.
If none comes in time, it shows where every thread is and ends the run.
"""

import contextlib
import dataclasses
import faulthandler
import os
import pathlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

from vlbeit_jax import progress
from vlbeit_jax.errors import Stuck
from vlbeit_jax.progress import duration
from vlbeit_jax.runtime import outside_watch
from vlbeit_jax.runtime.ending import end
from vlbeit_jax.unread import drop_unread_outputs

# What takes longer than a step may take so much longer: a start, compilation, evaluation, a save.
PATIENCE = 6
STARTS = "the run starts"
TICKS, LONGEST_TICK = 20, 1.0  # Looks within the limit; seconds between two of them at most.
PACKAGE = str(pathlib.Path(__file__).parents[1])


@dataclasses.dataclass
class _State:
    """What the thread looks at.

    Attributes:
      waited: seconds since the last beat, in which this process could run.
      doing: what takes longer than a step; empty while steps are taken.
    """

    waited: float = 0.0
    doing: str = ""


_state = _State()


def beat() -> None:
    """Notes a sign of progress. It costs nothing, and does nothing without a watchdog."""
    _state.waited = 0.0


@contextlib.contextmanager
def patient(doing: str) -> Iterator[None]:
    """Within its body, the limit is ``PATIENCE`` times as long.

    Args:
      doing: what takes longer than a step, as a sentence.
    """
    before, _state.doing = _state.doing, doing
    beat()
    try:
        yield
    finally:
        _state.doing = before
        beat()


def steps_begin() -> None:
    """Ends the patience of the start: from now on, steps are taken."""
    _state.doing = ""
    beat()


@contextlib.contextmanager
def watching(seconds: float, stuck: Callable[[Stuck], None] | None = None) -> Iterator[None]:
    """Within its body, which starts a run, a thread ends the process if nothing is done.

    Each item that ``progress`` counts is a beat.

    Args:
      seconds: without a beat, after which the process ends; 0: never.
      stuck: called instead of ending the process.
    """
    if not seconds:
        yield
        return
    _state.waited, _state.doing = 0.0, STARTS
    done = threading.Event()
    # A call into C that keeps Python's lock also stops the thread.
    with outside_watch.watched(PATIENCE * seconds) as alive:
        thread = threading.Thread(
            target=_watch, args=(seconds, done, stuck or _end, alive), name="watchdog", daemon=True
        )
        thread.start()
        try:
            with progress.checking(beat):
                yield
        finally:
            done.set()
            thread.join()
            _state.doing = ""


def _watch(
    seconds: float,
    done: threading.Event,
    stuck: Callable[[Stuck], None],
    alive: Callable[[], None],
) -> None:
    tick = min(seconds / TICKS, LONGEST_TICK)
    last = time.monotonic()
    while not done.wait(tick):
        alive()
        now = time.monotonic()
        # A process that was suspended, as by Ctrl-Z or SIGSTOP, has not waited all the time.
        _state.waited += min(now - last, 2 * tick)
        last = now
        limit = seconds * (PATIENCE if _state.doing else 1)
        if _state.waited > limit:
            stuck(Stuck(_message(limit)))
            return


def _message(limit: float) -> str:
    while_doing = f" while {_state.doing}" if _state.doing else ""
    return (
        f"nothing was done for {duration(limit)}{while_doing}: no step was finished; the main "
        f"thread is in {main_thread_place()}; the stack traces of all threads are above; run the "
        "same command again, or raise run.stuck_minutes if a step takes that long"
    )


def main_thread_place() -> str:
    """Returns the file, line and function of this package in which the main thread is."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    innermost = frame
    while frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    frame = frame or innermost
    if frame is None:
        return "no function"
    code = frame.f_code
    name = code.co_filename.removeprefix(f"{PACKAGE}{os.sep}")
    return f"{name}:{frame.f_lineno} ({code.co_name})"


def show_stacks() -> None:
    """Writes the stack traces of all threads to the standard error output."""
    drop_unread_outputs()  # This process ends even if nobody reads why.
    sys.stderr.flush()
    place = main_thread_place()
    os.write(2, f"the main thread of this process is in {place}; all threads:\n".encode())
    faulthandler.dump_traceback(2)


def _end(error: Stuck) -> None:
    show_stacks()
    end(str(error), error.code)
