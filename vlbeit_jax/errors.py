"""The errors that a command reports in one message, and its exit codes."""

import enum
from typing import NamedTuple


class Exit(enum.IntEnum):
    """Exit codes of every command. 65, 69, 74 and 75 are those of sysexits.h."""

    DONE = 0
    DEFECT = 1
    USAGE = 2
    BAD_DATA = 65
    DAMAGED = 66
    DIVERGED = 67
    STUCK = 68
    PEER_LOST = 69
    STORAGE = 74
    PREEMPTED = 75
    INTERRUPTED = 130


class Meaning(NamedTuple):
    """What an exit code says.

    Attributes:
      ended: why the command ended.
      restart: whether the same command may succeed, so that launch scripts try it again.
      advice: what the user does.
    """

    ended: str
    restart: bool
    advice: str


# docs/launch.md has this table, and launch/common.sh its second column; tests compare them.
MEANINGS = {
    Exit.DONE: Meaning("the work is done", False, "-"),
    Exit.DEFECT: Meaning("any other error; its traceback is shown", True, "report the traceback"),
    Exit.USAGE: Meaning("a mistake in the command, its files or its folders", False, "correct it"),
    Exit.BAD_DATA: Meaning(
        "records, lines or a shard cannot be used", False, "mend them, or prepare the set again"
    ),
    Exit.DAMAGED: Meaning(
        "no checkpoint can be used", False, "restore `checkpoints/` from a copy, or start anew"
    ),
    Exit.DIVERGED: Meaning(
        "too many steps were not finite", False, "lower `optimizer.peak_lr`; look at the records"
    ),
    Exit.STUCK: Meaning("no step was finished for too long", True, "look at the stack traces"),
    Exit.PEER_LOST: Meaning(
        "another process of the run is gone, or did not come", True, "look at its output"
    ),
    Exit.STORAGE: Meaning(
        "a disk is full, or cannot be read or written", True, "make room; look at the disk"
    ),
    Exit.PREEMPTED: Meaning("SIGTERM; a run has saved its step", True, "run it again"),
    Exit.INTERRUPTED: Meaning("Ctrl-C; a run has saved its step", False, "run it again"),
}


class Reported(Exception):
    """An error that ends a command with a message, without a traceback.

    Attributes:
      code: exit code of the command.
    """

    code: Exit = Exit.DEFECT


class UsageError(Reported, ValueError):
    """What was given, what is needed and what to change, in one readable message."""

    code = Exit.USAGE


class BadData(Reported):
    """A record or a shard that cannot be read; the message names it."""

    code = Exit.BAD_DATA


class Damaged(Reported):
    """A checkpoint that is not what was saved; the message names the step and what is wrong."""

    code = Exit.DAMAGED


class Diverged(Reported, FloatingPointError):
    """Too many steps were not finite, or a parameter is too large. Every process raises it.

    Attributes:
      code: exit code of the command.
      first: step with which it began; None if that is not known.
      last: the newest step that belongs to it; None if that is not known.
    """

    code = Exit.DIVERGED

    def __init__(self, message: str, first: int | None = None, last: int | None = None):
        """Args: ``message``, and the ``first`` and ``last`` step, if they are known."""
        super().__init__(message)
        self.first, self.last = first, last


class Stuck(Reported):
    """No step was finished for too long. The watchdog ends every process with it."""

    code = Exit.STUCK


class PeerLost(Reported):
    """Another process of the run has ended without a message, or has not come in time."""

    code = Exit.PEER_LOST


class StorageError(Reported):
    """A disk that is full, or that cannot be read or written; the message names the folder."""

    code = Exit.STORAGE


class Preempted(Reported):
    """SIGTERM has come, and the step is saved. Every process of a run raises it."""

    code = Exit.PREEMPTED


class Interrupted(KeyboardInterrupt):
    """Ctrl-C has come, and the step is saved. Every process of a run raises it.

    Attributes:
      code: exit code of the command.
    """

    code = Exit.INTERRUPTED
