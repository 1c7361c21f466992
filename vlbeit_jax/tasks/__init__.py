"""What can be trained: one file a task, one line here. A task is imported when it is used."""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vlbeit_jax import config_parse
from vlbeit_jax.config import Config

if TYPE_CHECKING:
    from vlbeit_jax.tasks.base import Task

# Importing a task imports JAX, which takes seconds. A misspelt field is reported before.
TASKS: Mapping[str, str] = {
    "pretrain": "vlbeit_jax.tasks.pretrain:Pretrain",
    "vqkd": "vlbeit_jax.tasks.vqkd:VQKD",
}


def task_of(config: Config, tasks: Mapping[str, str] = TASKS) -> "Task":
    """Returns the task that a configuration describes.

    Args:
      config: whose field ``task`` names it.
      tasks: from names to ``module:Class``.
    """
    module, _, name = tasks[config.task].partition(":")
    return getattr(importlib.import_module(module), name)(config)


def parse(values: Any, *, to_train: bool = True, tasks: Mapping[str, str] = TASKS) -> Config:
    """Returns a checked ``Config`` from a ``ConfigDict`` or from parsed JSON.

    Args:
      values: some or all fields.
      to_train: also check what holds between fields and what training needs. An imported model, for
        example, has no data.
      tasks: from names to ``module:Class``.

    Raises:
      UsageError: unknown fields, values of the wrong type or out of bounds, or values that
        contradict each other. All of them are listed, each with its path.
    """

    def problems(config: Config) -> list[str]:
        return list(task_of(config, tasks).problems()) if to_train else []

    return config_parse.parse(values, tuple(tasks), problems)
