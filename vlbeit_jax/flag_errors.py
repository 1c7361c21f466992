"""Explains errors of the command line in words of the configuration."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from vlbeit_jax.config.describe import meanings
from vlbeit_jax.config.nearest import nearest, or_list
from vlbeit_jax.config.schema import class_of

# What Python, absl or ml_collections say of a value, and what it means.
WANTED = {
    "invalid literal for int": "must be a whole number",
    "could not convert string to float": "must be a number",
    "Non-boolean argument": "must be True or False",
    "as a ConfigDict": "is a section, not a value; set one of the fields in it",
}


def explain(error: Exception, arguments: Sequence[str], own: Mapping[str, str]) -> str:
    """Returns what is wrong with the flags, on one line.

    Args:
      error: of absl or ml_collections.
      arguments: of the command line.
      own: meanings of the command's flags, by name.
    """
    if isinstance(error, flags.UnrecognizedFlagError):
        return _unknown_flag(error.flagname, own)
    text = _innermost(error)
    if isinstance(error, (KeyError, AttributeError)) and (
        unknown := _unknown_field(text, arguments)
    ):
        return unknown
    if required := re.findall(r"Flag (--\w+) must have a value other than None", text):
        return f"{', '.join(required)} {'is' if len(required) == 1 else 'are'} required"
    if choice := re.search(r"flag (--\w+=.*): value should be one of <(.*)>", text):
        values = ", ".join(value for value in choice[2].split("|") if value)
        return f"{choice[1]}: must be one of {values}"
    for said, wanted in WANTED.items():
        if said in text and (flag := re.search(r"flag (--[\w.]+=?[^:]*):", text)):
            return f"{flag[1]}: {wanted}"
    return text


def _innermost(error: Exception) -> str:
    # ml_collections wraps errors in a KeyError, whose text is the quoted message.
    message: object = error
    while isinstance(message, BaseException) and message.args:
        message = message.args[0]
    # If a configuration file fails, the message has its traceback; the last line is the reason.
    text, _, traceback = str(message).partition("Traceback")
    return " ".join([*text.split(), *traceback.strip().splitlines()[-1:]])


def _unknown_field(text: str, arguments: Sequence[str]) -> str:
    """Returns the message for a field that does not exist; "" if the error is another one."""
    name = re.match(r"['\"]?(\w+)", text)
    paths = [argument.removeprefix("--").partition("=")[0] for argument in arguments]
    matching = [path for path in paths if name and f".{name[1]}" in path]
    return f"--{matching[0]}: no such field{suggestion(matching[0], _fields())}" if matching else ""


def _unknown_flag(name: str, own: Mapping[str, str]) -> str:
    """Returns the message for a flag that does not exist."""
    near = suggestion(name, own)
    # Whoever leaves out "config" and the section means a field.
    if not near and "config" in own:
        near = suggestion(f"config.{name.removeprefix('config.')}", _fields())
    if name.startswith("config.") and "config" not in own:
        near = "; this command has no --config: it takes the configuration of the run"
    return f"--{name}: no such flag{near}"


def suggestion(given: str, known: Mapping[str, str]) -> str:
    """Returns "; did you mean --NAME?" for the nearest known names; "" for none."""
    near = [f"--{path}" for path in nearest(given, known)]
    return f"; did you mean {or_list(near)}?" if near else ""


def _fields() -> dict[str, str]:
    """Returns the meanings of all fields and sections of the given configuration, by path."""
    # This imports JAX, which takes seconds. An error message may take that long.
    from vlbeit_jax.tasks import TASKS, Config

    given: Any = flags.FLAGS["config"].value if "config" in flags.FLAGS else None
    try:
        kind = given.task.kind
    except (AttributeError, OSError):  # No file, or one that cannot be loaded or has no task.
        kind = None
    if kind in TASKS:
        return meanings(Config(task=class_of(TASKS, kind)()), "config")
    return meanings(Config(), "config", all_kinds=True)
