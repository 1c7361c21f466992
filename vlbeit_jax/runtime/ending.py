"""Ends this process at once, and says so first where others look."""

import contextlib
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

from vlbeit_jax import places
from vlbeit_jax.unread import drop_unread_outputs

PATIENCE = 20.0  # Seconds to tell the other processes of the run, and to write to its folder.
_notes: list[Callable[[str, int], None]] = []  # Called with the message and the exit code.
_tellers: list[Callable[[str, int], None]] = []


def end_now(code: int) -> NoReturn:
    """Ends this process without waiting for anything, and its loader processes with it."""
    try:
        for child in multiprocessing.active_children():
            child.kill()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(code)  # Even if nobody reads the output.


def end(said: str, code: int) -> NoReturn:
    """Ends this process with a message, after the other processes of the run were told.

    Args:
      said: why it ends.
      code: exit code of all processes.
    """
    threading.Timer(PATIENCE, os._exit, [code]).start()
    drop_unread_outputs()
    try:
        if _tellers:
            _tellers[-1](said, code)
        else:
            print(f"error: {said}", file=sys.stderr)
            note(said, code)
        places.settle()  # What was noted may not be in a bucket yet.
    finally:
        end_now(code)


@contextlib.contextmanager
def _within(
    calls: list[Callable[[str, int], None]], call: Callable[[str, int], None]
) -> Iterator[None]:
    calls.append(call)
    try:
        yield
    finally:
        calls.remove(call)


def telling(tell: Callable[[str, int], None]) -> contextlib.AbstractContextManager[None]:
    """Within its body, ``tell`` tells the other processes, notes and ends in place of ``end``."""
    return _within(_tellers, tell)


def noting(write: Callable[[str, int], None]) -> contextlib.AbstractContextManager[None]:
    """Within its body, ``write`` gets the message and the code before this process is ended."""
    return _within(_notes, write)


def note(said: str, code: int) -> None:
    """Writes a message where the run keeps its own; the innermost place first."""
    for write in reversed(_notes):
        write(said, code)
