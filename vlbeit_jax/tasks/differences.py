"""A configuration as its difference to the defaults."""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

from vlbeit_jax.config.schema import settings_of
from vlbeit_jax.tasks import Config


class Difference(NamedTuple):
    """A setting whose value is not its default.

    Attributes:
      path: its name, such as ``run.steps``.
      value: that of the run.
      default: that of a run of the same task.
      meaning: what the setting does.
    """

    path: str
    value: Any
    default: Any
    meaning: str


def differences(config: Config) -> list[Difference]:
    """Returns the settings of a run that are not those of a new run of its task."""
    return list(_differences(config, Config(task=type(config.task)()), ""))


def _differences(given: Any, default: Any, path: str) -> Iterator[Difference]:
    for field in settings_of(given):
        value, usual = getattr(given, field.name), getattr(default, field.name)
        if dataclasses.is_dataclass(value):
            yield from _differences(value, usual, f"{path}{field.name}.")
        elif value != usual:
            yield Difference(f"{path}{field.name}", value, usual, field.metadata["doc"])
