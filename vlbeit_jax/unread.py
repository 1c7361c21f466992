"""Outputs that nobody reads any more: of a pipe whose reader has ended, of a terminal that is gone.

Most commands end then, as programs do in a pipe. A run goes on: its folder has all that it says.
"""

import os
import select
import sys


def unread_outputs() -> list[int]:
    """Returns which of the two outputs nobody reads, such as those of a pipe to "head"."""
    poll, numbers = select.poll(), (1, 2)
    for number in numbers:
        # Without a wanted event, poll reports errors alone: of a pipe, that nobody reads it.
        poll.register(number, 0)
    broken = {number for number, event in poll.poll(0) if event & (select.POLLERR | select.POLLHUP)}
    return [number for number in numbers if number in broken]


def open_closed_outputs() -> None:
    """Sends an output that was closed before the start (``2>&-``) nowhere.

    Otherwise the next file that is opened would take its place, and get what is printed.
    """
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # It gets the lowest number that is free.
            setattr(sys, name, os.fdopen(opened, "r" if number == 0 else "w"))


def drop_unread_outputs() -> bool:
    """Lets this process write on into nowhere; returns whether it has an output nobody reads."""
    broken = unread_outputs()
    for number in broken:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)
    return bool(broken)
