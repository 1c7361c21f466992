"""The one error that means: the user can mend this."""


class UsageError(ValueError):
    """What was given, what is needed and what to change, in one readable message.

    Commands turn it into exit code 2 without a traceback; every other exception is a defect and keeps its traceback.
    """
