"""Between the dataclass schema, the command line and JSON: conversion, checks and help."""

import dataclasses
import difflib
import enum
import hashlib
import json
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections

from vlbeit_jax.config import Config
from vlbeit_jax.config_schema import LARGEST
from vlbeit_jax.errors import UsageError


def to_dict(config: Any) -> dict[str, Any]:
    """The fields of a config dataclass as plain, JSON-ready values (enums as their strings)."""
    found = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            value = to_dict(value)
        found[field.name] = str(value) if isinstance(value, enum.Enum) else value
    return found


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


def to_config_dict(config: Config) -> ml_collections.ConfigDict:
    """The whole tree as a locked ``ConfigDict``, so that ``--config.x.y=z`` reaches every field."""
    return ml_collections.ConfigDict(to_dict(config)).lock()


def parse(
    values: Any,
    tasks: Sequence[str] | None = None,
    task_problems: Callable[[Config], list[str]] | None = None,
) -> Config:
    """Returns a checked ``Config``; commands use ``vlbeit_jax.tasks.parse``.

    Args:
      values: some or all fields, in a ``ConfigDict`` or as parsed JSON.
      tasks: names that ``task`` may have; None: any.
      task_problems: what is wrong between fields; None: that is not checked.

    Raises:
      UsageError: unknown fields, values of the wrong type or out of bounds, or values that
        contradict each other. All of them are listed, each with its path.
    """
    if isinstance(values, ml_collections.ConfigDict):
        values = values.to_dict()
    problems: list[str] = []
    config = _parse_section(Config(), values, "config", problems)
    if tasks is not None and config.task not in tasks:
        problems.append(f"config.task={config.task!r}: must be one of {', '.join(tasks)}")
    if not problems and task_problems:
        problems = list(dict.fromkeys([*_common_problems(config), *task_problems(config)]))
    if problems:
        raise UsageError("the configuration cannot be used:\n  " + "\n  ".join(problems))
    return config


def fingerprint(value: Any) -> str:
    """Twelve hex digits of the SHA-256 of a JSON-ready value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def describe(section: Any = None, path: str = "config") -> str:
    """One line a field: path, default, meaning and bound; the ``--help`` of every config."""
    section, lines = section or Config(), []
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        name, doc, bound = f"{path}.{field.name}", field.metadata["doc"], field.metadata["bound"]
        if field.default_factory is not dataclasses.MISSING:
            lines += [f"\n{name}: {doc}", describe(value, name)]
        else:
            limit = f" ({bound.text})" if bound.text != "anything" else ""
            lines.append(f"  --{name}={value}  {doc}{limit}")
    return "\n".join(lines)


def _parse_section(default: Any, values: Any, path: str, problems: list[str]) -> Any:
    if not isinstance(values, Mapping):
        problems.append(f"{path}={values!r}: must be a group of fields")
        return default
    fields = {field.name: field for field in dataclasses.fields(default)}
    types = typing.get_type_hints(type(default))
    parsed = {}
    for name, value in values.items():
        if name not in fields:
            close = difflib.get_close_matches(name, fields, n=1)
            problems.append(
                f"{path}.{name}: no such field"
                + (f"; did you mean {path}.{close[0]}?" if close else "")
            )
        elif dataclasses.is_dataclass(types[name]):
            parsed[name] = _parse_section(getattr(default, name), value, f"{path}.{name}", problems)
        else:
            _parse_value(fields[name], types[name], value, f"{path}.{name}", parsed, problems)
    return dataclasses.replace(default, **parsed)


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


def _common_problems(config: Config) -> list[str]:
    run, warmup = config.run, config.optimizer.warmup_steps
    if warmup < run.steps:
        return []
    return [f"config.optimizer.warmup_steps={warmup} must be below run.steps={run.steps}"]
