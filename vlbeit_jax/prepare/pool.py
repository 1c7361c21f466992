"""Calls in several processes. Results do not depend on the order or number of the processes.

A worker is a new Python and no fork: ArrayRecord has threads, which a fork would leave behind in an
unknown state. Each has a pipe of its own. If the main process is killed, the pipe breaks and the
worker ends; if a worker is killed, the main process notices the end of its pipe.
"""

import collections
import contextlib
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from multiprocessing import connection
from typing import Any

from vlbeit_jax.errors import UsageError

Job = Any
Report = Callable[[int, Mapping[str, int]], None]
Call = Callable[[Job, Report], Any]


def processes(workers: int, jobs: int) -> int:
    """Returns how many processes to use; 0: this one alone.

    Args:
      workers: that are asked for; negative: one for each core.
      jobs: number of calls.
    """
    wanted = len(os.sched_getaffinity(0)) if workers < 0 else workers
    return min(wanted, jobs) if min(wanted, jobs) > 1 else 0


def run(call: Call, jobs: Iterable[Job], workers: int, report: Report) -> Iterator[tuple[Job, Any]]:
    """Calls ``call(job, report)`` for each job, and yields jobs with results as they end.

    An exception is a result too, so that other jobs can continue. When the caller stops to
    iterate, the workers end.

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
    busy: dict[connection.Connection, tuple[Any, Job]] = {}
    try:
        for _ in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, call), daemon=True)
            process.start()
            theirs.close()
            busy[ours] = (process, None)
            _give(busy, ours, waiting)
        while busy:
            for ready in connection.wait(list(busy)):
                assert isinstance(ready, connection.Connection)
                yield from _answer(busy, ready, waiting, report)
    finally:
        for ours, (process, _) in busy.items():
            process.terminate()
            process.join()
            ours.close()


def _answer(
    busy: dict[connection.Connection, tuple[Any, Job]],
    ready: connection.Connection,
    waiting: collections.deque[Job],
    report: Report,
) -> Iterator[tuple[Job, Any]]:
    """Takes one message of a worker."""
    process, job = busy[ready]
    try:
        what, *values = ready.recv()
    except (EOFError, ConnectionResetError):
        process.join()
        del busy[ready]
        yield job, _gone(process.exitcode)
        return
    if what == "progress":
        report(*values)
        return
    yield job, values[0]
    _give(busy, ready, waiting)


def _give(
    busy: dict[connection.Connection, tuple[Any, Job]],
    ours: connection.Connection,
    waiting: collections.deque[Job],
) -> None:
    """Sends a worker its next job, or ends it."""
    process, _ = busy[ours]
    if waiting:
        busy[ours] = (process, waiting.popleft())
        with contextlib.suppress(BrokenPipeError):  # It has ended, as its pipe will say.
            ours.send(busy[ours][1])
    else:
        del busy[ours]
        ours.close()
        process.join()


def _gone(code: int | None) -> UsageError:
    how = signal.Signals(-code).name if code is not None and code < 0 else f"code {code}"
    return UsageError(
        f"a worker process was ended from outside ({how}). If the memory was full, use fewer "
        "--workers. Finished parts are kept: run the same command again"
    )


def _work(pipe: connection.Connection, call: Call) -> None:
    """Runs in a worker: answers jobs until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The main process ends it.

    def report(items: int, dropped: Mapping[str, int]) -> None:
        pipe.send(("progress", items, dict(dropped)))

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
