"""Registry of tasks: one line each, imported on use; and the configuration of a whole run."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from vlbeit_jax.config.common import (
    ClusterConfig,
    LoaderConfig,
    MeshConfig,
    OptimizerConfig,
    RunConfig,
)
from vlbeit_jax.config.parse import parse_section
from vlbeit_jax.config.schema import one_kind_of, section
from vlbeit_jax.config.streams import StreamConfig
from vlbeit_jax.errors import UsageError
from vlbeit_jax.training.schedule import Schedule

TASKS: dict[str, str] = {
    "pretrain": "vlbeit_jax.tasks.pretrain:Pretrain",
    "vqkd": "vlbeit_jax.tasks.vqkd:VQKD",
    "vqa": "vlbeit_jax.tasks.vqa:VQATask",
    "visual_reasoning": "vlbeit_jax.tasks.visual_reasoning:VisualReasoning",
    "retrieval": "vlbeit_jax.tasks.retrieval:Retrieval",
    "segmentation": "vlbeit_jax.tasks.segmentation:Segmentation",
    "captioning": "vlbeit_jax.tasks.captioning:Captioning",
    "image_classification": "vlbeit_jax.tasks.image_classification:ImageClassification",
    "text_classification": "vlbeit_jax.tasks.text_classification:TextClassification",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run: what is trained, on what, how and where."""

    # A ``tasks.base.Task``: the task is its own section.
    task: Any = one_kind_of(TASKS, "pretrain", "what is trained, on what data")
    run: RunConfig = section(RunConfig, "length, logs, checkpoints")
    optimizer: OptimizerConfig = section(OptimizerConfig, "AdamW")
    loader: LoaderConfig = section(LoaderConfig, "reading ahead")
    mesh: MeshConfig = section(MeshConfig, "devices")
    cluster: ClusterConfig = section(ClusterConfig, "hosts")


def parse(
    values: Any,
    *,
    to_train: bool = True,
    complete: Callable[["Config"], "Config"] = lambda config: config,
) -> Config:
    """Returns a checked ``Config``.

    Args:
      values: some or all fields, in a ``ConfigDict`` or as parsed JSON.
      to_train: also check what training needs. An imported model, for example, has no data.
      complete: fills in what follows from other settings, once each field is valid by itself.

    Raises:
      UsageError: unknown fields, values of the wrong type or out of bounds, or values that
        contradict each other. All of them are listed, each with its path.
    """
    _refuse_old_layout(values)
    more = {"problems": _training_problems} if to_train else {}
    return parse_section(Config(), values, "config", complete=complete, **more)


def _training_problems(config: Config) -> Iterable[str]:
    run, warmup = config.run, config.optimizer.warmup_steps
    if run.steps == 0 and not run.epochs:
        yield "config.run.steps=0: must be > 0, unless run.epochs says how often to see the data"
    elif run.steps and warmup >= run.steps:
        yield f"config.optimizer.warmup_steps={warmup} must be below run.steps={run.steps}"
    yield from (f"config.task.{text}" for text in config.task.training_problems())
    if config.optimizer.ema_decay and (why_not := getattr(config.task, "no_averages", "")):
        yield f"config.optimizer.ema_decay={config.optimizer.ema_decay:g}: {why_not}"
    for name in Schedule.parse(config.task.schedule).streams:
        stream = getattr(config.task, name, None)
        if isinstance(stream, StreamConfig) and stream.batch_size % run.accumulate:
            yield (
                f"config.task.{name}.batch_size={stream.batch_size} must be a multiple of "
                f"run.accumulate={run.accumulate}"
            )


def _refuse_old_layout(values: Any) -> None:
    """In version 0.1.0, ``task`` was a string and its sections were top-level."""
    if isinstance(values, (Mapping, ConfigDict)) and isinstance(values.get("task"), str):
        raise UsageError(
            f"config.task={values['task']!r} is a name, as in vlbeit_jax 0.1.0; now it is a "
            "section with a field 'kind'. Use the version that wrote it, or write the "
            "configuration anew: config.model is config.task.model, config.data.image is "
            "config.task.image, config.run.schedule is config.task.schedule; --help lists every "
            "field"
        )
