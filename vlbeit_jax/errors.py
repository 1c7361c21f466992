"""The error for problems that the user can fix."""


class UsageError(ValueError):
    """What was given, what is needed and what to change, in one readable message.

    Commands print it without a traceback and exit with code 2. Every other exception is a defect
    and keeps its traceback.
    """
