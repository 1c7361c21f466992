"""What all commands share: flags, and reported errors as an exit code without a traceback."""

import contextlib
import io
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging

from vlbeit_jax import progress
from vlbeit_jax.config import files
from vlbeit_jax.errors import Exit, Reported, UsageError
from vlbeit_jax.flag_errors import explain
from vlbeit_jax.redact import redacted
from vlbeit_jax.runtime.cpu_memory import use_huge_pages
from vlbeit_jax.storage import told_of_storage, unmasked
from vlbeit_jax.unread import drop_unread_outputs, open_closed_outputs

# JAX and PyTorch have no common type for the error of a full device; its message has one of these.
OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "out of memory")
CONFIG = "config"  # The flag that names a configuration file.
HELP = ("--help", "-help", "-h")
_typed: list[str] = []  # The arguments, before names of configuration files become paths.
_places: list[str] = []  # The arguments without a flag.
NOT_READ = 141  # Exit code of a program whose output nobody reads, as shells have it.


def run(
    main: Callable[[], None],
    overview: str,
    details: Callable[[], str] | None = None,
    *,
    places: int = 0,
) -> None:
    """Parses the flags and calls ``main``.

    Args:
      main: the command.
      overview: shown by ``--help`` above the flags.
      details: returns what ``--help`` shows below them.
      places: how many arguments without a flag the command takes; ``given_places`` returns them.
    """
    open_closed_outputs()
    use_huge_pages()
    _prepare_config()
    _flush_each_line()
    progress.show()
    logging.set_verbosity(logging.WARNING)
    # The flags of a file that is run, or of one that a console script has imported.
    module = sys.argv[0] if main.__module__ == "__main__" else main.__module__
    try:
        app.run(
            lambda _: _without_traceback(main),
            flags_parser=lambda arguments: _parse(arguments, module, overview, details, places),
        )
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
    except BrokenPipeError:
        # Another pipe may have broken, such as that of a loader process.
        # Python would complain again when it flushes the output at its end.
        if not drop_unread_outputs():
            raise
        sys.exit(NOT_READ)


def _flush_each_line() -> None:
    """Shows each line as it is printed. Python keeps lines of a pipe back until there are many."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)


def typed_arguments() -> list[str]:
    """Returns the arguments of the command as the user gave them: valid on other machines too."""
    return _typed[1:]


def typed_config() -> str:
    """Returns the last value of ``--config`` as the user gave it; empty if a flagfile holds it."""
    values = [value for _, _, value in _config_arguments(_typed)]
    return values[-1] if values else ""


def _prepare_config() -> None:
    """Lets a command with a configuration take the file's name, and lists as plain text.

    The path of the file replaces its name in the arguments.
    """
    _typed[:] = sys.argv
    if CONFIG not in flags.FLAGS:
        return
    # It imports ml_collections, as only commands with a configuration do.
    from vlbeit_jax.config.lists import take_plain_lists

    take_plain_lists()
    try:
        for place, flag, value in _config_arguments(_typed):
            sys.argv[place] = f"{flag}{files.resolved(value)}"
    except UsageError as error:
        fail(error)


def _config_arguments(arguments: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """Yields place, beginning and value of each argument with a value of ``--config``."""
    names = (f"--{CONFIG}", f"-{CONFIG}")
    for place, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag in names and equals:
            yield place, f"{flag}=", value
        elif place and arguments[place - 1] in names:
            yield place, "", argument


def fail(message: object, code: Exit = Exit.USAGE) -> NoReturn:
    """Ends the process with a message, which is the last line that it prints."""
    drop_unread_outputs()  # The code counts even if nobody reads the message.
    print(f"error: {redacted(str(message))}", file=sys.stderr)
    sys.exit(code)


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
            "the memory of a device is full. Reduce the batch size, e.g. "
            "--config.task.image.batch_size=8, or compute the batch in parts with "
            f"--config.run.accumulate=2 (docs/hardware.md tells what fits): {error}"
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


def _without_traceback(main: Callable[[], None]) -> None:
    try:
        main()
    except Reported as error:
        told = unmasked(error)
        fail(told, Exit(told.code))
    except OSError as error:
        told = told_of_storage(error, None)
        if told is None:
            raise
        fail(told, Exit(told.code))


def given_places() -> list[str]:
    """Returns the arguments without a flag."""
    return _places


def _parse(
    arguments: Sequence[str],
    module: str,
    overview: str,
    details: Callable[[], str] | None,
    places: int,
) -> Sequence[str]:
    if any(argument in HELP for argument in arguments[1:]):
        _help(arguments, module, overview, details)
    try:
        rest = flags.FLAGS(list(arguments))
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        if said := _usage_error_behind(error):
            fail(said)
        own = {flag.name: flag.help for flag in flags.FLAGS.get_key_flags_for_module(module)}
        fail(f"{explain(error, arguments, own)} (--help lists every flag)")
    if len(rest) > 1 + places:
        fail(f"unknown argument {rest[1 + places]!r}; flags start with -- (--help lists them)")
    _places[:] = rest[1:]
    return rest


def _usage_error_behind(error: BaseException | None) -> UsageError | None:
    """Returns the error of a configuration file, whose message absl puts into others."""
    first = None
    while error is not None:
        first = error if isinstance(error, UsageError) else first
        error = error.__cause__ or error.__context__
    return first


def _help(
    arguments: Sequence[str], module: str, overview: str, details: Callable[[], str] | None
) -> NoReturn:
    """Shows what the command does, its flags and its details, and ends the process."""
    # Required flags may be missing here. The others are read: details may depend on them.
    with contextlib.suppress(flags.Error):
        flags.FLAGS([argument for argument in arguments if argument not in HELP])
    # absl begins with the path of the file.
    _, _, own = flags.FLAGS.module_help(module).strip().partition("\n")
    try:
        below = f"\n\n{details()}" if details else ""
    except UsageError as error:
        fail(error)
    print(_fitted(f"{overview}\n\nFlags:\n{own}{below}"))
    sys.exit(0)


def _fitted(text: str) -> str:
    """Returns the text with lines that fit the terminal; for other programs, as it is."""
    if not sys.stdout.isatty():
        return text
    width = shutil.get_terminal_size().columns
    return "\n".join(
        textwrap.fill(line, width, subsequent_indent=" " * 6, break_on_hyphens=False)
        if len(line) > width
        else line
        for line in text.splitlines()
    )
