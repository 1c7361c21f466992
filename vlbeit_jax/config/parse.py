"""Parses, checks and documents sections, from flags or from JSON."""

import dataclasses
import difflib
import enum
import hashlib
import json
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import ml_collections

from vlbeit_jax.config.schema import LARGEST, class_of, settings_of
from vlbeit_jax.errors import UsageError

Section = TypeVar("Section")


def to_dict(section: Any) -> dict[str, Any]:
    """Returns a section as JSON-ready values; one of several classes has an entry ``kind``."""
    found = {}
    for field in settings_of(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            value = _kind_entry(field, value) | to_dict(value)
        found[field.name] = str(value) if isinstance(value, enum.Enum) else value
    return found


def _kind_entry(field: dataclasses.Field, section: Any) -> dict[str, str]:
    return {"kind": section.kind} if "kinds" in field.metadata else {}


def flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested values by their dotted path."""
    found = {}
    for name, value in values.items():
        found |= (
            flat(value, f"{path}{name}.")
            if isinstance(value, Mapping)
            else {f"{path}{name}": value}
        )
    return found


def to_config_dict(config: Any) -> ml_collections.ConfigDict:
    """The whole tree as a locked ``ConfigDict``, so that ``--config.x.y=z`` reaches every field."""
    return ml_collections.ConfigDict(to_dict(config)).lock()


def parse_section(
    default: Section,
    values: Any,
    path: str,
    problems: Callable[[Section], Iterable[str]] = lambda section: (),
    complete: Callable[[Section], Section] = lambda section: section,
) -> Section:
    """Returns a checked section.

    Args:
      default: a section of the wanted class, with the values of what is not given.
      values: some or all settings, in a ``ConfigDict`` or as parsed JSON.
      path: of the section, for messages.
      problems: further checks, made once every section is valid by itself.
      complete: fills in settings that follow from others, once each is valid by itself.

    Raises:
      UsageError: unknown settings, values of the wrong type or out of bounds, or values that
        contradict each other. All of them are listed, each with its path.
    """
    if isinstance(values, ml_collections.ConfigDict):
        values = values.to_dict()
    wrong: list[str] = []
    parsed = _parse_section(default, values, path, wrong)
    parsed = parsed if wrong else complete(parsed)
    wrong = wrong or [*_problems_between(parsed, path), *problems(parsed)]
    if wrong:
        listed = "\n  ".join(dict.fromkeys(wrong))
        raise UsageError(f"the configuration cannot be used:\n  {listed}")
    return parsed


def fingerprint(value: Any) -> str:
    """Twelve hex digits of the SHA-256 of a JSON-ready value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def describe(section: Any, path: str, about: str = "") -> str:
    """One line a setting: path, default, meaning and bound; the ``--help`` of every config.

    Args:
      section: whose settings are described, with its values as defaults.
      path: of the section.
      about: follows the path in titles, such as the kind that a section belongs to.
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
            lines += _describe_kinds(field, value, name)
        else:
            lines += [f"\n{name}{about}: {doc}", describe(value, name, about)]
    return "\n".join(lines)


def _limit(field: dataclasses.Field, types: Mapping[str, Any]) -> str:
    bound, wanted = field.metadata["bound"].text, types[field.name]
    if isinstance(wanted, enum.EnumType):
        return f" (one of {', '.join(str(value) for value in list(wanted))})"
    return f" ({bound})" if bound != "anything" else ""


def _describe_kinds(field: dataclasses.Field, value: Any, path: str) -> Iterator[str]:
    kinds = field.metadata["kinds"]
    yield f"\n{path}: {field.metadata['doc']}"
    yield f"  --{path}.kind={value.kind}  set by the configuration file (one of {', '.join(kinds)})"
    for kind in sorted(kinds, key=lambda kind: kind != value.kind):
        section = value if kind == value.kind else class_of(kinds, kind)()
        yield f"\n{path} (kind={kind}):"
        yield describe(section, path, f" (kind={kind})")


def _problems_between(section: Any, path: str) -> Iterator[str]:
    """Yields what every section says of its own settings."""
    if hasattr(section, "problems"):
        yield from (f"{path}.{text}" for text in section.problems())
    for field in settings_of(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            yield from _problems_between(value, f"{path}.{field.name}")


def _parse_section(default: Any, values: Any, path: str, problems: list[str]) -> Any:
    if not isinstance(values, Mapping):
        problems.append(f"{path}={values!r}: must be a group of fields")
        return default
    fields = {field.name: field for field in settings_of(default)}
    types = typing.get_type_hints(type(default))
    parsed = {}
    for name, value in values.items():
        if name not in fields:
            close = difflib.get_close_matches(name, fields, n=1)
            problems.append(
                f"{path}.{name}: no such field"
                + (f"; did you mean {path}.{close[0]}?" if close else "")
            )
            continue
        before, inner = getattr(default, name), f"{path}.{name}"
        if "kinds" in fields[name].metadata:
            kinds = fields[name].metadata["kinds"]
            parsed[name] = _parse_kind(before, kinds, value, inner, problems)
        elif dataclasses.is_dataclass(before):
            parsed[name] = _parse_section(before, value, inner, problems)
        else:
            _parse_value(fields[name], types[name], value, inner, parsed, problems)
    return dataclasses.replace(default, **parsed)


def _parse_kind(
    default: Any, kinds: Mapping[str, str], values: Any, path: str, problems: list[str]
) -> Any:
    if not isinstance(values, Mapping):
        problems.append(f"{path}={values!r}: must be a group of fields, one of them {path}.kind")
        return default
    kind = values.get("kind", default.kind)
    if kind not in kinds:
        problems.append(f"{path}.kind={kind!r}: must be one of {', '.join(kinds)}")
        return default
    chosen = default if kind == default.kind else class_of(kinds, kind)()
    rest = {name: value for name, value in values.items() if name != "kind"}
    # A configuration file gives every field of its own kind.
    other = next((each for each in kinds if each != kind and _has_all(kinds, each, rest)), None)
    if other and not _has_all(kinds, kind, rest):
        problems.append(
            f"{path}.kind={kind!r}: the other fields are those of kind {other!r}; start from a "
            f"configuration file whose kind is {kind!r}"
        )
        return default
    return _parse_section(chosen, rest, path, problems)


def _has_all(kinds: Mapping[str, str], kind: str, values: Mapping[str, Any]) -> bool:
    return {field.name for field in settings_of(class_of(kinds, kind)())} == values.keys()


def _parse_value(
    field: Any, wanted: Any, value: Any, path: str, parsed: dict, problems: list[str]
) -> None:
    typed = _typed(wanted, value)
    bound = field.metadata["bound"]
    if typed is None:
        if isinstance(wanted, enum.EnumType):
            needed = " | ".join(str(value) for value in list(wanted))
        else:
            needed = str(wanted) if typing.get_origin(wanted) else wanted.__name__
        problems.append(f"{path}={value!r}: must be {needed}")
    elif not bound.holds(typed):
        problems.append(f"{path}={value!r}: must be {bound.text}")
    elif type(typed) is int and abs(typed) > LARGEST:
        problems.append(f"{path}={value!r}: must be at most {LARGEST}")
    else:
        parsed[field.name] = typed


def _typed(wanted: Any, value: Any) -> Any:
    """Returns the value as the wanted type, or None if it has another; an int may be a float."""
    if typing.get_origin(wanted) is tuple:
        item = typing.get_args(wanted)[0]
        items = (
            [_typed(item, each) for each in value] if isinstance(value, (list, tuple)) else [None]
        )
        return None if any(each is None for each in items) else tuple(items)
    if isinstance(wanted, enum.EnumType):
        return wanted(value) if value in list(wanted) else None
    if wanted is float and type(value) is int:
        return float(value)
    return value if type(value) is wanted else None
