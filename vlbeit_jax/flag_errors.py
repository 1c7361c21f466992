"""Explains errors of the command line in words of the configuration."""

import difflib
import re
from collections.abc import Sequence

# What Python, absl or ml_collections say of a value, and what it means.
WANTED = {
    "invalid literal for int": "must be a whole number",
    "could not convert string to float": "must be a number",
    "Non-boolean argument": "must be True or False",
    "as a ConfigDict": "is a section, not a value; set one of the fields in it",
}


def explain(error: Exception, arguments: Sequence[str]) -> str:
    """Returns what is wrong with the flags, on one line.

    Args:
      error: of absl or ml_collections.
      arguments: of the command line.
    """
    text = _innermost(error)
    if isinstance(error, (KeyError, AttributeError)) and (
        unknown := _unknown_field(text, arguments)
    ):
        return unknown
    if required := re.findall(r"Flag (--\w+) must have a value other than None", text):
        return f"{', '.join(required)} {'is' if len(required) == 1 else 'are'} required"
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
    found = [path for path in paths if name and f".{name[1]}" in path]
    if not found:
        return ""
    near = nearest(found[0])
    return f"--{found[0]}: no such field" + (f"; did you mean --{near}?" if near else "")


def nearest(path: str) -> str:
    """Returns the field whose path ends like this one, or is spelt like it; "" for none."""
    # This imports JAX, which takes seconds. An error message may take that long.
    from vlbeit_jax.config.parse import describe
    from vlbeit_jax.tasks import Config

    fields = re.findall(r"^  --([\w.]+)=", describe(Config(), "config"), re.MULTILINE)
    names = path.split(".")
    for first in range(1, len(names)):  # A section may have moved, with all that is in it.
        tail = "." + ".".join(names[first:])
        if ends := [field for field in fields if field.endswith(tail)]:
            return ends[0]
    return next(iter(difflib.get_close_matches(path, fields, n=1)), "")
