"""How every command starts and ends: absl flags, and usage errors as exit code 2 without a traceback."""

import os
import pathlib
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from vlbeit_jax.errors import UsageError
from vlbeit_jax.runtime.cpu_memory import use_huge_pages

USAGE_ERROR = 2


def run(main: Callable[[], None], overview: str) -> None:
    """Parses the flags and calls ``main``.

    Args:
      main: the command.
      overview: shown by ``--help`` above the flags.
    """
    use_huge_pages()
    logging.set_verbosity(logging.WARNING)
    try:
        app.run(
            lambda _: _guarded(main), flags_parser=lambda arguments: _parse(arguments, overview)
        )
    except KeyboardInterrupt:
        sys.exit(130)


def fail(message: object) -> None:
    """Ends the process with a usage error."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(USAGE_ERROR)


def _guarded(main: Callable[[], None]) -> None:
    try:
        main()
    except UsageError as error:
        fail(error)


def _parse(arguments: Sequence[str], overview: str) -> Sequence[str]:
    if any(argument in ("--help", "-help", "-h") for argument in arguments[1:]):
        print(f"{overview}\n\n{flags.FLAGS.main_module_help()}")
        sys.exit(0)
    try:
        rest = flags.FLAGS(list(arguments))
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        said: object = error
        while (
            isinstance(said, BaseException) and said.args
        ):  # ml_collections wraps a KeyError, which quotes what it says.
            said = said.args[0]
        said, _, trace = str(said).partition(
            "Traceback"
        )  # Of an error in a configuration file; its last line says what is wrong.
        fail(
            f"{' '.join([*said.split(), *trace.strip().splitlines()[-1:]])} (--help lists every flag)"
        )
    if len(rest) > 1:
        fail(f"unknown argument {rest[1]!r}; flags start with -- (--help lists them)")
    return rest


def require_writable(path: pathlib.Path) -> None:
    """Raises a ``UsageError`` now, and not after an hour's work, if a result could not be written."""
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(f"{path} cannot be written: name a file in an existing, writable folder")
