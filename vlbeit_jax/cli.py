"""What all commands share: flags, and usage errors as exit code 2 without a traceback."""

import contextlib
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging

from vlbeit_jax.config import files
from vlbeit_jax.errors import UsageError
from vlbeit_jax.flag_errors import explain
from vlbeit_jax.runtime.cpu_memory import use_huge_pages

USAGE_ERROR = 2  # Exit code.
# JAX and PyTorch have no common type for the error of a full device; its message has one of these.
OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "out of memory")
CONFIG = "config"  # The flag that names a configuration file.
INTERRUPTED = 130  # Exit code after Ctrl-C, as shells have it.


def run(main: Callable[[], None], overview: str | Callable[[], str]) -> None:
    """Parses the flags and calls ``main``.

    Args:
      main: the command.
      overview: shown by ``--help`` above the flags; a function if it takes long to make.
    """
    use_huge_pages()
    _find_config_file()
    logging.set_verbosity(logging.WARNING)
    try:
        app.run(
            lambda _: _without_traceback(main),
            flags_parser=lambda arguments: _parse(arguments, overview),
        )
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _find_config_file() -> None:
    """Puts the path of the configuration file into the arguments where they have its name."""
    if CONFIG not in flags.FLAGS:
        return
    try:
        for place, argument in enumerate(sys.argv):
            flag, equals, value = argument.partition("=")
            if flag in (f"--{CONFIG}", f"-{CONFIG}") and equals:
                sys.argv[place] = f"{flag}={files.resolved(value)}"
            elif sys.argv[place - 1 : place] == [f"--{CONFIG}"]:
                sys.argv[place] = files.resolved(argument)
    except UsageError as error:
        fail(error)


def fail(message: object) -> NoReturn:
    """Ends the process with a usage error."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(USAGE_ERROR)


@contextlib.contextmanager
def explains_full_memory() -> Iterator[None]:
    """Turns the error of a full device, JAX's or PyTorch's, into a usage error.

    Raises:
      UsageError: the memory of a device is full.
    """
    try:
        yield
    except RuntimeError as error:
        # Both libraries raise it for other reasons as well.
        if not any(message in str(error) for message in OUT_OF_MEMORY):
            raise
        raise UsageError(
            "the step does not fit into memory. Reduce the batch size, e.g. "
            f"--config.task.image.batch_size=8: {error}"
        ) from error


def config_values(flag: Any) -> dict[str, Any]:
    """Returns the values of a configuration flag.

    Raises:
      UsageError: the configuration file cannot be loaded.
    """
    try:
        # If the file could not be loaded, any access raises.
        return flag.value.to_dict()
    except OSError as error:
        *_, reason = str(error).strip().splitlines()
        reason = re.sub(r"\[Errno \d+\] ", "", reason.strip())
        raise UsageError(f"--config cannot be loaded: {reason}") from error


def require_writable(path: pathlib.Path) -> None:
    """Checks that a result can be written, before an hour's work is lost.

    Raises:
      UsageError: the path is a folder, or its folder is missing or read-only.
    """
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(f"{path} cannot be written: give a file in an existing, writable folder")


def _without_traceback(main: Callable[[], None]) -> None:
    try:
        main()
    except UsageError as error:
        fail(error)


def _parse(arguments: Sequence[str], overview: str | Callable[[], str]) -> Sequence[str]:
    if any(argument in ("--help", "-help", "-h") for argument in arguments[1:]):
        text = overview if isinstance(overview, str) else overview()
        print(f"{text}\n\n{flags.FLAGS.main_module_help()}")
        sys.exit(0)
    try:
        rest = flags.FLAGS(list(arguments))
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        fail(f"{explain(error, arguments)} (--help lists every flag)")
    if len(rest) > 1:
        fail(f"unknown argument {rest[1]!r}; flags start with -- (--help lists them)")
    return rest
