"""SIGTERM, SIGHUP and Ctrl-C. A run that trains notes them; at other times they end the process.

Python calls a handler between two instructions of the main thread, which may be inside a
compilation for minutes. So a thread of its own reads each signal as it comes
(``signal.set_wakeup_fd``), and ends the process where nothing has to be saved.
"""

import contextlib
import dataclasses
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from vlbeit_jax.errors import Exit
from vlbeit_jax.runtime.ending import end

CODES = {
    signal.SIGTERM: Exit.PREEMPTED,
    signal.SIGHUP: Exit.PREEMPTED,  # The terminal is gone, as when a connection is lost.
    signal.SIGINT: Exit.INTERRUPTED,
}
SAID = {
    Exit.PREEMPTED: "{}: ended at once, because there was no new step to save; run the same "
    "command again",
    Exit.INTERRUPTED: "interrupted; run the same command again",
}


@dataclasses.dataclass
class _State:
    """What this process does with a signal.

    Attributes:
      asked: exit code of the first signal that was noted.
      noting: whether signals are noted.
      listening: whether a thread ends the process at a signal that is not noted.
      presses: of Ctrl-C.
      preempted_by: name of the signal that asks this process to save and end.
    """

    asked: Exit | None = None
    noting: bool = False
    listening: bool = False
    presses: int = 0
    preempted_by: str = signal.SIGTERM.name


_state = _State()


def preempted_by() -> str:
    """Returns the name of the signal that preempts; SIGTERM if another process got it."""
    return _state.preempted_by


def asked() -> Exit | None:
    """Returns the exit code of the first signal that was noted; None before."""
    return _state.asked


@contextlib.contextmanager
def ends_at_once() -> Iterator[None]:
    """Within its body, a signal that is not noted ends the process, even during a compilation."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    before = _take_signals()
    wakeup = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    _state.listening = True
    thread = threading.Thread(target=_listen, args=(read,), name="signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        _state.listening = False
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(write)  # The thread then ends.
        thread.join()
        os.close(read)


@contextlib.contextmanager
def noted() -> Iterator[None]:
    """Within its body, signals are noted, and ``asked`` returns the first one.

    A second Ctrl-C ends the process, or raises KeyboardInterrupt outside ``ends_at_once``. Outside
    the main thread Python allows no handlers, so that nothing is noted there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = _take_signals()
    _state.asked, _state.noting, _state.presses = None, True, 0
    try:
        yield
    finally:
        _state.asked, _state.noting = None, False
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Within its body, which lies in that of ``noted``, a signal ends the process if it can."""
    was_noting = _state.noting
    if _state.listening:
        _state.noting = False
        if _state.asked:
            _end(_state.asked)
    try:
        yield
    finally:
        _state.noting = was_noting


def _take_signals() -> dict[signal.Signals, Any]:
    """Sets the handler of each signal, and returns those before it.

    ``nohup`` has SIGHUP ignored, and it stays so.
    """
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    taken = [each for each in CODES if each is not signal.SIGHUP or not ignored]
    return {number: signal.signal(number, _note) for number in taken}


def _note(number: int, frame: FrameType | None) -> None:
    """The handler, which runs in the main thread.

    If signals are not noted, the thread ends the process. It may have looked just before that
    changed (``at_once``), so the signal is kept in any case.
    """
    second = number == signal.SIGINT and _state.asked
    if _state.noting and second and not _state.listening:
        raise KeyboardInterrupt
    _state.asked = _state.asked or CODES[signal.Signals(number)]


def _listen(read: int) -> None:
    while number := os.read(read, 1):
        came = signal.Signals(number[0])
        code = CODES.get(came)
        if code is Exit.PREEMPTED:
            _state.preempted_by = came.name
        _state.presses += code is Exit.INTERRUPTED
        pressed_twice = code is Exit.INTERRUPTED and _state.presses > 1
        if code and (pressed_twice or not _state.noting):
            _end(code)


def _end(code: Exit) -> None:
    end(SAID[code].format(_state.preempted_by), code)
