"""Names of classes in a file of the user's, and texts about them."""

import collections
import dataclasses
import json

from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import place

PLACE = "{}"  # In a template, where the name of the class goes.


@dataclasses.dataclass(frozen=True)
class ClassTexts:
    """Classes that are known by texts about them.

    Attributes:
      names: of the classes.
      templates: of texts; each has a ``PLACE`` for the name.
    """

    names: tuple[str, ...]
    templates: tuple[str, ...] = (PLACE,)

    @property
    def texts(self) -> list[str]:
        """The texts of the first class, one for each template, then those of the next."""
        return [each.replace(PLACE, name) for name in self.names for each in self.templates]


def read_class_names(path: str) -> tuple[str, ...]:
    """Reads the file of ``--classes``: one name a line, or a JSON list.

    Raises:
      UsageError: the file cannot be read, holds fewer than two names, or one twice.
    """
    try:
        text = place(path).read_text(encoding="utf-8-sig")
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


def read_templates(path: str) -> tuple[str, ...]:
    """Reads the file of ``--templates``: one text a line, with ``{}`` for the name of a class.

    Raises:
      UsageError: the file cannot be read, is empty, or a line has no place for the name.
    """
    try:
        lines = place(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UsageError(f"--templates={path}: cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip() and PLACE not in line:
            raise UsageError(
                f"--templates={path}:{number}: {line.strip()!r} has no {PLACE} for the name of the "
                'class; write for example "a photo of a {}."'
            )
    templates = tuple(line.strip() for line in lines if line.strip())
    if not templates:
        raise UsageError(f"--templates={path}: it is empty; give one text a line")
    return templates


def read_class_texts(classes: str, templates: str) -> ClassTexts | None:
    """Reads the files of ``--classes`` and ``--templates``; None if both are empty.

    Raises:
      UsageError: as ``read_class_names`` and ``read_templates``; or there are templates alone.
    """
    if not classes:
        if templates:
            raise UsageError("--templates needs --classes, the names that it is about")
        return None
    names = read_class_names(classes)
    return ClassTexts(names, read_templates(templates)) if templates else ClassTexts(names)
