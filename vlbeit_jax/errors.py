"""The error for problems that the user can fix, and exit codes."""

USAGE_ERROR = 2
INTERRUPTED = 130  # After Ctrl-C, as shells have it.


class UsageError(ValueError):
    """What was given, what is needed and what to change, in one readable message.

    Commands print it without a traceback and exit with code 2. Every other exception is a defect
    and keeps its traceback.
    """
