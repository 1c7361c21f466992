"""Describes sections for people: what ``--help`` lists, and what error messages suggest."""

import dataclasses
import enum
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from vlbeit_jax.config.schema import class_of, settings_of


def describe(section: Any, path: str, about: str = "", *, all_kinds: bool = True) -> str:
    """Returns a line for each setting: path, value, meaning, bound; the ``--help`` of a config.

    Args:
      section: whose settings are described, with its values.
      path: of the section.
      about: follows the path in titles, such as the kind that a section belongs to.
      all_kinds: describe every kind that a section may be of, and not only the one that it is of.
    """
    values = {field: getattr(section, field.name) for field in settings_of(section)}
    sections = {field: value for field, value in values.items() if dataclasses.is_dataclass(value)}
    types = typing.get_type_hints(type(section))
    lines = [
        f"  --{path}.{field.name}={value}  {field.metadata['doc']}{_limit(field, types)}"
        for field, value in values.items()
        if field not in sections
    ]
    for field, value in sections.items():
        name, doc = f"{path}.{field.name}", field.metadata["doc"]
        if "kinds" in field.metadata:
            lines += _describe_kinds(field, value, name, all_kinds)
        else:
            lines += [
                f"\n{name}{about}: {doc}",
                describe(value, name, about, all_kinds=all_kinds),
            ]
    return "\n".join(lines)


def _limit(field: dataclasses.Field, types: Mapping[str, Any]) -> str:
    bound, wanted = field.metadata["bound"].text, types[field.name]
    if isinstance(wanted, enum.EnumType):
        return f" (one of {', '.join(str(value) for value in list(wanted))})"
    return f" ({bound})" if bound != "anything" else ""


def _describe_kinds(
    field: dataclasses.Field, value: Any, path: str, all_kinds: bool
) -> Iterator[str]:
    kinds = field.metadata["kinds"]
    yield f"\n{path}: {field.metadata['doc']}"
    yield f"  --{path}.kind={value.kind}  set by the configuration file (one of {', '.join(kinds)})"
    for kind in sorted(kinds, key=lambda kind: kind != value.kind):
        if kind == value.kind or all_kinds:
            section = value if kind == value.kind else class_of(kinds, kind)()
            yield f"\n{path} (kind={kind}):"
            yield describe(section, path, f" (kind={kind})", all_kinds=all_kinds)


def meanings(section: Any, path: str, *, all_kinds: bool = False) -> dict[str, str]:
    """Returns the meaning of every setting and section below a section, by path.

    Args:
      section: of any class.
      path: of the section.
      all_kinds: as in ``describe``; what several kinds have in common is there once.
    """
    docs: dict[str, str] = {}
    for field in settings_of(section):
        value, name = getattr(section, field.name), f"{path}.{field.name}"
        docs[name] = field.metadata["doc"]
        if not dataclasses.is_dataclass(value):
            continue
        docs |= meanings(value, name, all_kinds=all_kinds)
        if all_kinds and "kinds" in field.metadata:
            for kind in field.metadata["kinds"]:
                other = class_of(field.metadata["kinds"], kind)()
                docs = meanings(other, name, all_kinds=all_kinds) | docs
    return docs
