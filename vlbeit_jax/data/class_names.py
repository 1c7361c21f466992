"""Names of classes in a file of the user's."""

import collections
import json
import pathlib

from vlbeit_jax.errors import UsageError


def read_class_names(path: str) -> tuple[str, ...]:
    """Reads the file of ``--classes``: one name a line, or a JSON list.

    Raises:
      UsageError: the file cannot be read, holds fewer than two names, or one twice.
    """
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8-sig")
        listed = json.loads(text) if text.lstrip().startswith("[") else text.splitlines()
    except (OSError, ValueError) as error:
        raise UsageError(f"--classes={path}: cannot be read: {error}") from error
    if not all(isinstance(each, str) for each in listed):
        raise UsageError(f"--classes={path}: a name of a class is not a string")
    names = [each.strip() for each in listed if each.strip()]
    if twice := [name for name, count in collections.Counter(names).items() if count > 1]:
        raise UsageError(f"--classes={path}: {twice[0]!r} is there twice")
    if len(names) < 2:
        raise UsageError(f"--classes={path}: holds {len(names)} names; give two or more")
    return tuple(names)
