"""What a loader process does before it reads data."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading


def begin(index: int, count: int) -> None:
    """Leaves signals to the trainer, and ends with it.

    SIGTERM, Ctrl-C and SIGHUP often go to all processes of a group. The trainer still needs batches
    for the step that it takes before it saves; then it ends this process. A killed trainer cannot,
    so this process also watches whether the trainer lives.

    Args:
      index: of this process, which Grain gives.
      count: of loader processes, which Grain gives.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_trainer, daemon=True).start()


def _end_with_the_trainer() -> None:
    if trainer := multiprocessing.parent_process():
        multiprocessing.connection.wait([trainer.sentinel])
        os._exit(0)
