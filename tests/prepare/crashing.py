"""A call that crashes, in a module that a worker imports quickly."""

import os
import signal


def crash_at_three(job, report):
    """A call; odd jobs report what they read."""
    if job % 2:
        report(1, {"a": 1}, f"file {job}")
    if job == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    if job == 4:
        os.kill(os.getpid(), signal.SIGABRT)
    return 10 * job
