"""Small commands that take paths only."""

import sys
from collections.abc import Callable

from vlbeit_jax.errors import Exit, Reported
from vlbeit_jax.runtime.cpu_memory import use_huge_pages


def run(main: Callable[[list[str]], None], overview: str | None) -> None:
    """Runs a command; ``--help`` prints its overview.

    Reported errors and Ctrl-C end it with the exit codes of the package's commands, without a
    traceback.
    """
    use_huge_pages()
    arguments = sys.argv[1:]
    if any(word in ("--help", "-h") for word in arguments):
        print(overview)
        return
    try:
        main(arguments)
    except Reported as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.code)
    except KeyboardInterrupt:
        print("interrupted; run the same command again", file=sys.stderr)
        sys.exit(Exit.INTERRUPTED)
