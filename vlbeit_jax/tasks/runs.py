"""Reads the configuration of an existing run, and of a run that starts from another run."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from vlbeit_jax.config.networks import NOT_OF_THE_NETWORK, ModelConfig
from vlbeit_jax.config.schema import settings_of
from vlbeit_jax.errors import UsageError
from vlbeit_jax.tasks import Config, parse
from vlbeit_jax.tasks.assets import TEXT_TOKENIZER, VISUAL_TOKENIZER
from vlbeit_jax.training.saved_run import CONFIG_FILE, newest_step
from vlbeit_jax.training.warm_start import WarmStart
from vlbeit_jax.types import Positions

# What a run with new parameters of these names does not take from its start.
_SIZES_OF_TOKENS = {"text_embed/words": ("vocabulary", "pad"), "vision_head/kernel": ("codes",)}
Values = dict[str, Any]


def read_config(folder: pathlib.Path, setting: str = "") -> Config:
    """Returns the configuration of a run.

    Args:
      folder: folder of the run.
      setting: name of the setting that gives the folder; messages name it unless it is empty.

    Raises:
      UsageError: the folder does not belong to a run, or its configuration cannot be read.
    """
    try:
        values = json.loads((folder / CONFIG_FILE).read_text())
    except (OSError, ValueError) as error:
        named = f"{setting}={folder}" if setting else str(folder)
        raise UsageError(
            f"{named} is not the folder of a run: {CONFIG_FILE}: {error}; "
            "give the --workdir of a run"
        ) from error
    try:
        return parse(values, to_train=False)
    except UsageError as error:
        raise UsageError(f"{folder / CONFIG_FILE}: {error}") from error


def read_network(folder: pathlib.Path, setting: str = "") -> tuple[Config, ModelConfig]:
    """Returns the configuration of a run, and the sizes of its Multiway Transformer.

    Args:
      folder: folder of the run.
      setting: as in ``read_config``.

    Raises:
      UsageError: see ``read_config``; or the run trains another network.
    """
    config = read_config(folder, setting)
    network = getattr(config.task, "model", None)
    if not isinstance(network, ModelConfig):
        named = f"{setting}={folder}" if setting else str(folder)
        raise UsageError(
            f"{named} is a run of task {config.task.kind!r}, which has no Multiway Transformer; "
            "give a run of pretraining or fine-tuning, or an import"
        )
    return config, network


def parse_run(
    values: Values, *, workdir: pathlib.Path | None = None, to_train: bool = True
) -> Config:
    """Returns the checked configuration of a run.

    With ``task.model.like_start``, it has the network of the run that ``run.start_from`` names.

    Args:
      values: some or all fields.
      workdir: folder of the run. Once it has a checkpoint, the network is that of its own
        configuration, because the start may have changed or be gone.
      to_train: see ``tasks.parse``.

    Raises:
      UsageError: see ``tasks.parse``; or the start is not a run with a Multiway Transformer.
    """
    task, start = values.get("task"), values.get("run", {}).get("start_from")
    # In version 0.1.0 the task was a name; ``parse`` says so.
    model = task.get("model", {}) if isinstance(task, Mapping) else {}
    if start and model.get("like_start"):
        values = _like_start(values, pathlib.Path(start), workdir)
    return parse(values, to_train=to_train)


def _like_start(values: Values, start: pathlib.Path, workdir: pathlib.Path | None) -> Values:
    if workdir and newest_step(workdir) is not None:
        start = workdir
    task = values["task"]
    _, network = read_network(start, "config.run.start_from")
    names = {field.name for field in settings_of(network)} - set(NOT_OF_THE_NETWORK)
    rules = WarmStart(fresh=tuple(task.get("fresh", ())))
    for parameter, own in _SIZES_OF_TOKENS.items():
        if rules.is_fresh(parameter):
            names -= set(own)
    model = task["model"] | {name: getattr(network, name) for name in names}
    if network.positions is Positions.ABSOLUTE:
        # Shorter texts need only the first positions.
        wanted = task["model"].get("text_positions", network.text_positions)
        model["text_positions"] = min(network.text_positions, wanted)
    task = task | {"model": model}
    for name in (TEXT_TOKENIZER, VISUAL_TOKENIZER):
        if task.get(name) == "" and (start / name).is_dir():
            task[name] = str(start / name)
    return values | {"task": task}
