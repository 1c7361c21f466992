"""Settings: default, meaning, bound, and whether a resumed task may change the value."""

import dataclasses
import enum
import importlib
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Bound(NamedTuple):
    """A condition on one value, and how to say it."""

    text: str
    holds: Callable[[Any], bool]


ANY = Bound("anything", lambda value: True)
POSITIVE = Bound("> 0", lambda value: 0 < value < math.inf)
AT_LEAST_0 = Bound(">= 0", lambda value: 0 <= value < math.inf)
LARGEST = 2**31 - 1  # JAX uses 32-bit integers.
SEED = Bound(f"in [0, {LARGEST}]", lambda value: 0 <= value <= LARGEST)
SECONDS = Bound(
    "in [1, 1000000]", lambda value: 1 <= value <= 1_000_000
)  # Milliseconds of it fit into 32 bits.
SHARE = Bound("in [0, 1]", lambda value: 0 <= value <= 1)
PART = Bound("in (0, 1]", lambda value: 0 < value <= 1)
FOLLOWS = -1  # A number that follows from others, once data and tokenizers are known.
FOLLOWS_OR_POSITIVE = Bound("-1 or > 0", lambda value: value == FOLLOWS or 0 < value < math.inf)
FOLLOWS_OR_AT_LEAST_0 = Bound("-1 or >= 0", lambda value: value == FOLLOWS or 0 <= value < math.inf)
OPEN_SHARE = Bound("in [0, 1)", lambda value: 0 <= value < 1)


def one_of(*values: str) -> Bound:
    """Returns the bound of a value out of a fixed list."""
    return Bound("one of " + ", ".join(values), lambda value: value in values)


def setting(default: Any, doc: str, bound: Bound = ANY, *, may_change: bool = False) -> Any:
    """Returns a field with its default, its meaning and its bound on one line.

    ``may_change`` marks a setting of a task that does not change what is trained, so that a run may
    resume with another value. Settings outside the task may change, except for the seed and
    ``optimizer.trainable``.
    """
    metadata = {"doc": doc, "bound": bound, "may_change": may_change}
    return dataclasses.field(default=default, metadata=metadata)


def section(factory: Callable[[], Any], doc: str, *, may_change: bool = False) -> Any:
    """Returns a nested group of settings; with ``may_change``, any of them may change on resume."""
    return dataclasses.field(
        default_factory=factory, metadata={"doc": doc, "may_change": may_change}
    )


def one_kind_of(classes: Mapping[str, str], default: str, doc: str) -> Any:
    """Returns a section that is one of several classes, chosen by its ``kind``.

    Each class stores its name in the class variable ``kind``.

    Args:
      classes: from kinds to ``module:Class``; a class is imported when it is chosen.
      default: the kind of a new section.
      doc: the section's meaning.
    """
    return dataclasses.field(
        default_factory=lambda: class_of(classes, default)(),
        metadata={"doc": doc, "kinds": classes, "may_change": False},
    )


def class_of(classes: Mapping[str, str], kind: str) -> Any:
    """Returns the class of a kind."""
    module, _, name = classes[kind].partition(":")
    return getattr(importlib.import_module(module), name)


def settings_of(section: Any) -> list[dataclasses.Field]:
    """Returns the settings and nested sections of a section, in order.

    A section may have fields that are no settings, such as what it has read from a folder.
    """
    return [field for field in dataclasses.fields(section) if "doc" in field.metadata]


def fixed_settings(section: Any, path: str) -> dict[str, Any]:
    """Returns the settings that must not change on resume, by path, ready for JSON."""
    fixed = {}
    for field in settings_of(section):
        value, name = getattr(section, field.name), f"{path}.{field.name}"
        if field.metadata["may_change"]:
            continue
        fixed |= (
            fixed_settings(value, name) if dataclasses.is_dataclass(value) else {name: plain(value)}
        )
    return fixed


def plain(value: Any) -> Any:
    """Returns a setting's value in the form that JSON gives back."""
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, enum.Enum) else value
