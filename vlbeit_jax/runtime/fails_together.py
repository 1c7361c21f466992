"""Ends all processes of a run if one of them fails, with one message and one exit code.

A process that fails leaves the others in a collective operation that waits for it. So it puts its
message into the key-value store of JAX's coordinator, where a thread of every other process looks
once a second.
"""

import contextlib
import json
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

import jax

from vlbeit_jax.errors import Diverged, Exit, Interrupted, PeerLost, Preempted, Reported
from vlbeit_jax.redact import redacted
from vlbeit_jax.runtime import watchdog
from vlbeit_jax.runtime.bad_data import TooManyBadRecords
from vlbeit_jax.runtime.ending import end_now, note, telling
from vlbeit_jax.runtime.hosts import AgreedError
from vlbeit_jax.runtime.jax_internals import key_value_store, process_and_count

LOOK_SECONDS = 1.0  # Between two looks for a message.
LEAVE_SECONDS = 10.0  # How long process 0 waits for the others to have read it.
# Every process raises these at the same step, so no process has to be told.
AGREED = (AgreedError, Diverged, TooManyBadRecords, Preempted, Interrupted)
# What JAX's errors say where a collective operation has lost a process.
LOST = ("Gloo", "closed by peer", "reset by peer", "UNAVAILABLE", "heartbeat")
_MESSAGE, _READ = "vlbeit_jax/failed/message", "vlbeit_jax/failed/read"


class Failure(NamedTuple):
    """Why a run ends.

    Attributes:
      message: for the user.
      code: exit code of all processes.
    """

    message: str
    code: int


@contextlib.contextmanager
def fails_together() -> Iterator[None]:
    """Ends every process of the run if an error leaves this block in one of them.

    A single process sees its own error. All processes have raised those of ``AGREED``.
    """
    if (store := key_value_store()) is None:
        yield
        return
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(store, done), daemon=True)
    watcher.start()

    def stop_watching() -> None:
        done.set()
        watcher.join()

    try:
        with telling(lambda said, code: _tell(store, said, code)):
            yield
    except AGREED:
        raise
    except BaseException as error:
        stop_watching()  # It would find this process's own message.
        # Python would wait in JAX's shutdown for the other processes, so this process ends here.
        _end(store, _announced(store, _described(error)))
    finally:
        stop_watching()


def _watch(store: Any, done: threading.Event) -> None:
    """Ends this process once another has failed; returns once this one is ``done``."""
    while not done.wait(LOOK_SECONDS):
        try:
            failure = _found(store)
        except jax.errors.JaxRuntimeError:
            return  # Process 0 is gone, and JAX ends this process.
        if failure:
            if failure.code == Exit.STUCK:
                watchdog.show_stacks()  # Perhaps it is this process that the others wait for.
            _end(store, failure)


def _described(error: BaseException) -> Failure:
    """Returns what the others are told. The traceback of a defect is printed here alone."""
    process, count = process_and_count()
    host = f"host {socket.gethostname()} (process {process} of {count})"
    if isinstance(error, KeyboardInterrupt):
        return Failure(f"{host} was interrupted", Exit.INTERRUPTED)
    said = "".join(traceback.format_exception_only(error)).strip()
    if isinstance(error, jax.errors.JaxRuntimeError) and any(word in said for word in LOST):
        error = PeerLost(f"another process of the run has ended without a message: {said}")
    if isinstance(error, Reported):
        return Failure(f"{host}: {error}", error.code)
    return Failure(f"{host} failed; its own output has the traceback: {said}", Exit.DEFECT)


def _tell(store: Any, said: str, code: int) -> None:
    """Tells the others that a thread of this process ends it, and waits as ``_end`` does."""
    process, count = process_and_count()
    host = f"host {socket.gethostname()} (process {process} of {count})"
    _end(store, _announced(store, Failure(f"{host}: {said}", code)))


def _announced(store: Any, own: Failure) -> Failure:
    """Returns the failure that all processes report: the first one, or else this process's own.

    A collective operation fails here if another process has ended. Then that one's failure counts.
    """
    try:
        store.key_value_set(_MESSAGE, json.dumps(own))  # Raises if there is one.
    except jax.errors.JaxRuntimeError:
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # Process 0 is gone.
            if first := _found(store):
                return first
    if own.code == Exit.DEFECT:
        traceback.print_exc()
    return own


def _found(store: Any) -> Failure | None:
    """Returns the failure that a process has announced."""
    try:
        return Failure(*json.loads(store.key_value_try_get(_MESSAGE)))
    except jax.errors.JaxRuntimeError as error:
        if "NOT_FOUND" not in str(error):
            raise
        return None


def _end(store: Any, failure: Failure) -> NoReturn:
    """Ends this process; process 0, which has the store, after the others have read the failure."""
    try:
        print(f"error: {redacted(failure.message)}", file=sys.stderr)
        process, count = process_and_count()
        store.key_value_set(f"{_READ}/{process}", "")
        last = time.monotonic() + (LEAVE_SECONDS if process == 0 else 0)
        while len(store.key_value_dir_get(_READ)) < count and time.monotonic() < last:
            time.sleep(LOOK_SECONDS / 10)
        note(failure.message, failure.code)
    finally:
        end_now(failure.code)  # Even if nobody reads the output, or process 0 is gone.
