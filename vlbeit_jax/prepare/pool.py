"""Calls in several processes. Results do not depend on the order or number of the processes.

A worker is a new Python and no fork: ArrayRecord has threads, which a fork would leave behind in an
unknown state. Each has a pipe of its own. If the main process is killed, the pipe breaks and the
worker ends; if a worker is killed or crashes, the main process notices the end of its pipe.
"""

import collections
import contextlib
import dataclasses
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from multiprocessing import connection
from typing import Any, Protocol

from vlbeit_jax.errors import UsageError

Job = Any
PATIENCE = 5.0  # Seconds for a worker to remove its unfinished files.
# Signals by which a library in C ends a process, after damage that it does not notice.
CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE)


class Report(Protocol):
    """Gets the progress of a call."""

    def __call__(self, items: int, dropped: Mapping[str, int], reading: str = "") -> None:
        """Takes what is new.

        Args:
          items: number since the last report.
          dropped: of these, by reason.
          reading: the input that is read from now on; empty: the same as before.
        """
        ...


def silent(items: int, dropped: Mapping[str, int], reading: str = "") -> None:
    """A ``Report`` that says nothing."""


Call = Callable[[Job, Report], Any]


class CrashedError(Exception):
    """A library has ended a worker process.

    Attributes:
      how: name of the signal.
      reading: the input that was being read; empty if it is unknown.
    """

    def __init__(self, how: str, reading: str):
        """Says what happened."""
        super().__init__(f"a worker process crashed ({how}) while it read {reading or 'its input'}")
        self.how, self.reading = how, reading


@dataclasses.dataclass
class _Worker:
    """A worker process, and what it does."""

    process: Any
    job: Job = None
    reading: str = ""


Workers = dict[connection.Connection, _Worker]


def processes(workers: int, jobs: int) -> int:
    """Returns how many processes to use; 0: this one alone.

    Args:
      workers: that are asked for; negative: one for each core.
      jobs: number of calls.
    """
    if workers >= 0:
        return min(workers, jobs)
    count = min(len(os.sched_getaffinity(0)), jobs)
    return count if count > 1 else 0


def run(call: Call, jobs: Iterable[Job], workers: int, report: Report) -> Iterator[tuple[Job, Any]]:
    """Calls ``call(job, report)`` for each job, and yields jobs with results as they end.

    An exception is a result too, so that other jobs can continue; so is a ``CrashedError``, after
    which another worker takes the place of the one that crashed. When the caller stops to iterate,
    the workers end.

    Args:
      call: picklable.
      jobs: picklable, in the order in which to begin them.
      workers: processes; 0: this one.
      report: gets the progress of all.
    """
    if not workers:
        for job in jobs:
            yield job, _tried(call, job, report)
        return
    waiting = collections.deque(jobs)
    context = multiprocessing.get_context("spawn")
    busy: Workers = {}
    try:
        while waiting or busy:
            while waiting and len(busy) < workers:
                ours, theirs = context.Pipe()
                process = context.Process(target=_work, args=(theirs, call), daemon=True)
                process.start()
                theirs.close()
                busy[ours] = _Worker(process)
                _give(busy, ours, waiting)
            for ready in connection.wait(list(busy)):
                assert isinstance(ready, connection.Connection)
                yield from _answer(busy, ready, waiting, report)
    finally:
        for worker in busy.values():
            worker.process.terminate()
        for ours, worker in busy.items():
            worker.process.join(PATIENCE)
            worker.process.kill()  # It is in a library's code.
            worker.process.join()
            ours.close()


def _answer(
    busy: Workers,
    ready: connection.Connection,
    waiting: collections.deque[Job],
    report: Report,
) -> Iterator[tuple[Job, Any]]:
    """Takes one message of a worker."""
    worker = busy[ready]
    try:
        what, *values = ready.recv()
    except (EOFError, ConnectionResetError):
        worker.process.join()
        del busy[ready]
        yield worker.job, _gone(worker)
        return
    if what == "progress":
        worker.reading = values[-1] or worker.reading
        report(*values)
        return
    yield worker.job, values[0]
    _give(busy, ready, waiting)


def _give(busy: Workers, ours: connection.Connection, waiting: collections.deque[Job]) -> None:
    """Sends a worker its next job, or ends it."""
    worker = busy[ours]
    if waiting:
        worker.job, worker.reading = waiting.popleft(), ""
        with contextlib.suppress(BrokenPipeError):  # It has ended, as its pipe will say.
            ours.send(worker.job)
    else:
        del busy[ours]
        ours.close()
        worker.process.join()


def _gone(worker: _Worker) -> Exception:
    code = worker.process.exitcode
    how = signal.Signals(-code).name if code is not None and code < 0 else f"code {code}"
    if code is not None and -code in CRASHES:
        return CrashedError(how, worker.reading)
    return UsageError(
        f"a worker process was ended from outside ({how}). If the memory was full, use fewer "
        "--workers. Finished parts are kept: run the same command again"
    )


def _work(pipe: connection.Connection, call: Call) -> None:
    """Runs in a worker: answers jobs until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The main process ends it.
    # By an exception, so that it removes its unfinished files.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))

    def report(items: int, dropped: Mapping[str, int], reading: str = "") -> None:
        pipe.send(("progress", items, dict(dropped), reading))

    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            job = pipe.recv()
            result = _tried(call, job, report)
            if isinstance(result, Exception):
                result.add_note("".join(traceback.format_exception(result)))
            pipe.send(("result", result))


def _tried(call: Call, job: Job, report: Report) -> Any:
    try:
        return call(job, report)
    except Exception as error:  # It is a result; the caller decides what follows.
        return error
