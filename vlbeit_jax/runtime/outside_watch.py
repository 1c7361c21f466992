"""Watches a process from outside, because a call into C may keep Python's lock.

Then no thread of Python runs in that process, the watchdog's neither. So a small Python of its own
waits for beats on a pipe. If none comes in time, it has the process show its stack traces, which
needs no lock, and kills it. It runs this file as a program, so the file imports nothing heavy.
"""

import contextlib
import faulthandler
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

SHOW_STACKS = signal.SIGUSR1  # A process that is watched shows its stack traces, and goes on.
BEAT = b"."
DUMP_SECONDS = 1.0  # For the stack traces.
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)


@contextlib.contextmanager
def watched(seconds: float) -> Iterator[Callable[[], None]]:
    """Within its body, a process outside kills this one if it gets no beat in time.

    Args:
      seconds: without a beat.

    Yields:
      A function that sends a beat.
    """
    faulthandler.register(SHOW_STACKS, file=2, all_threads=True)
    # Neither the user's site-packages nor variables of the environment slow its start.
    line = [sys.executable, "-I", "-S", __file__, str(os.getpid()), str(seconds)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as watcher:
        assert watcher.stdin is not None
        pipe = watcher.stdin.fileno()
        os.set_blocking(pipe, False)

        def beat() -> None:
            # A full pipe holds beats enough. If the watcher was killed, the run goes on without.
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                os.write(pipe, BEAT)

        try:
            yield beat
        finally:
            faulthandler.unregister(SHOW_STACKS)


def _watch(process: int, limit: float) -> None:
    """Kills the parent after ``limit`` seconds without a beat; returns when it has ended."""
    tick, waited, last = min(limit / 20, 1.0), 0.0, time.monotonic()
    while waited <= limit:
        heard = bool(select.select([0], [], [], tick)[0])
        ended = heard and not os.read(0, 4096)
        if ended or os.getppid() != process:
            return
        now = time.monotonic()
        # Time does not count in which this process or the other one was suspended.
        waited = 0.0 if heard or _is_suspended(process) else waited + min(now - last, 2 * tick)
        last = now
    os.kill(process, SHOW_STACKS)
    time.sleep(DUMP_SECONDS)
    print(_last_words(process, limit), file=sys.stderr, flush=True)
    os.kill(process, signal.SIGKILL)


def _last_words(process: int, limit: float) -> str:
    then = "it is killed; run the same command again"
    if process == 1:  # Linux lets no other process of a container kill its first one.
        then = (
            "it is process 1 of its container, so end the container from outside, and start it "
            "with an init: docker run --init, or shareProcessNamespace in Kubernetes"
        )
    return (
        f"error: process {process} gave no sign of life for {limit:.0f}s: a call into C keeps "
        f"Python's lock; the stack traces of all threads are above; {then}"
    )


def _is_suspended(process: int) -> bool:
    """Whether a signal has stopped it, such as SIGSTOP or Ctrl-Z."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8") as file:
            state = file.read().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state in "Tt"


if __name__ == "__main__":
    for number in IGNORED:  # They are meant for the process that is watched.
        signal.signal(number, signal.SIG_IGN)
    _watch(int(sys.argv[1]), float(sys.argv[2]))
