"""Parses, checks and documents sections, from flags or from JSON."""

import dataclasses
import enum
import functools
import hashlib
import json
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import ml_collections

from vlbeit_jax.config.describe import meanings
from vlbeit_jax.config.nearest import nearest, or_list
from vlbeit_jax.config.schema import LARGEST, class_of, settings_of
from vlbeit_jax.errors import UsageError

Section = TypeVar("Section")
Known = Callable[[], Mapping[str, str]]  # Returns the meanings of all settings, by path.


def to_dict(section: Any) -> dict[str, Any]:
    """Returns a section as JSON-ready values; one of several classes has an entry ``kind``."""
    values = {}
    for field in settings_of(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            value = _kind_entry(field, value) | to_dict(value)
        values[field.name] = str(value) if isinstance(value, enum.Enum) else value
    return values


def _kind_entry(field: dataclasses.Field, section: Any) -> dict[str, str]:
    return {"kind": section.kind} if "kinds" in field.metadata else {}


def flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Returns nested values by their dotted path."""
    flattened = {}
    for name, value in values.items():
        flattened |= (
            flat(value, f"{path}{name}.")
            if isinstance(value, Mapping)
            else {f"{path}{name}": value}
        )
    return flattened


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
    # Only a mistake needs the meanings of all settings.
    known = functools.cache(lambda: meanings(default, path))
    parsed = _parse_section(default, values, path, wrong, known)
    parsed = parsed if wrong else complete(parsed)
    wrong = wrong or [*_problems_between(parsed, path), *problems(parsed)]
    if wrong:
        listed = "\n  ".join(dict.fromkeys(wrong))
        raise UsageError(f"the configuration cannot be used:\n  {listed}")
    return parsed


def fingerprint(value: Any) -> str:
    """Returns twelve hex digits of the SHA-256 of a JSON-ready value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def _problems_between(section: Any, path: str) -> Iterator[str]:
    """Yields what every section says of its own settings."""
    if hasattr(section, "problems"):
        yield from (f"{path}.{text}" for text in section.problems())
    for field in settings_of(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            yield from _problems_between(value, f"{path}.{field.name}")


def _parse_section(default: Any, values: Any, path: str, problems: list[str], known: Known) -> Any:
    if not isinstance(values, Mapping):
        problems.append(f"{path}={values!r}: must be a group of fields")
        return default
    fields = {field.name: field for field in settings_of(default)}
    types = typing.get_type_hints(type(default))
    parsed = {}
    for name, value in values.items():
        if name not in fields:
            # A kind of section other than the default has settings of its own.
            near = nearest(f"{path}.{name}", {**known(), **meanings(default, path)})
            meant = f"; did you mean {or_list(near)}?" if near else ""
            problems.append(f"{path}.{name}: no such field{meant}")
            continue
        before, inner = getattr(default, name), f"{path}.{name}"
        if "kinds" in fields[name].metadata:
            kinds = fields[name].metadata["kinds"]
            parsed[name] = _parse_kind(before, kinds, value, inner, problems, known)
        elif dataclasses.is_dataclass(before):
            parsed[name] = _parse_section(before, value, inner, problems, known)
        else:
            _parse_value(fields[name], types[name], value, inner, parsed, problems)
    return dataclasses.replace(default, **parsed)


def _parse_kind(
    default: Any,
    kinds: Mapping[str, str],
    values: Any,
    path: str,
    problems: list[str],
    known: Known,
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
    return _parse_section(chosen, rest, path, problems, known)


def _has_all(kinds: Mapping[str, str], kind: str, values: Mapping[str, Any]) -> bool:
    return {field.name for field in settings_of(class_of(kinds, kind)())} == values.keys()


def _parse_value(
    field: Any, wanted: Any, value: Any, path: str, parsed: dict, problems: list[str]
) -> None:
    typed = _typed(wanted, value)
    bound = field.metadata["bound"]
    if typed is None:
        if isinstance(wanted, enum.EnumType):
            needed = f"one of {', '.join(str(value) for value in list(wanted))}"
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
