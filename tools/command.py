"""Small commands that take paths only."""

import sys
from collections.abc import Callable

from vlbeit_jax.errors import UsageError

USAGE_ERROR = 2  # Exit code, as of the package's commands.


def run(main: Callable[[list[str]], None], overview: str | None) -> None:
    """Runs a command; ``--help`` prints its overview, and a usage error has no traceback."""
    arguments = sys.argv[1:]
    if any(word in ("--help", "-h") for word in arguments):
        print(overview)
        return
    try:
        main(arguments)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USAGE_ERROR)
