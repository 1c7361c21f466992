"""Reads the configuration of a run that is to start: completed, or like the run it starts from."""

import pathlib
from collections.abc import Mapping
from typing import Any

from vlbeit_jax.config.networks import NOT_OF_THE_NETWORK
from vlbeit_jax.config.schema import FOLLOWS, settings_of
from vlbeit_jax.config.streams import ImageStreamConfig
from vlbeit_jax.errors import UsageError
from vlbeit_jax.folders import run_folder
from vlbeit_jax.tasks import Config, parse
from vlbeit_jax.tasks.assets import TEXT_TOKENIZER, VISUAL_TOKENIZER
from vlbeit_jax.tasks.complete import completed, unknown
from vlbeit_jax.tasks.runs import read_network
from vlbeit_jax.training.saved_run import newest_step
from vlbeit_jax.training.warm_start import WarmStart
from vlbeit_jax.types import Positions

# What a run with new parameters of these names does not take from its start.
_SIZES_OF_TOKENS = {"text_embed/words": ("vocabulary", "pad"), "vision_head/kernel": ("codes",)}
# Settings of masks, with the values that leave them open.
_OPEN_MASKS = {"num_masked_patches": FOLLOWS, "mask_block": 0}
Values = dict[str, Any]


def parse_run(
    values: Values, *, workdir: pathlib.Path | None = None, to_train: bool = True
) -> Config:
    """Returns the checked configuration of a run, in which every number is stated.

    With ``task.model.like_start``, it has the network of the run that ``run.start_from`` names, and
    its image size and masks where they are left open.
    Settings that follow from tokenizers and data are completed (``tasks.complete``).

    Args:
      values: some or all fields.
      workdir: folder of the run. Once it has a checkpoint, the network is that of its own
        configuration, because the start may have changed or be gone.
      to_train: see ``tasks.parse``.

    Raises:
      UsageError: see ``tasks.parse``; or the start is not a run with a Multiway Transformer, or a
        tokenizer or data set from which a setting follows cannot be opened.
    """
    task, start = values.get("task"), values.get("run", {}).get("start_from")
    # In version 0.1.0 the task was a name; ``parse`` says so.
    model = task.get("model", {}) if isinstance(task, Mapping) else {}
    if start and model.get("like_start"):
        values = _like_start(values, run_folder(start), workdir)
    config = parse(values, to_train=to_train, complete=completed)
    if missing := list(unknown(config)):
        raise UsageError("\n  ".join(["the configuration leaves something open:", *missing]))
    return config


def _like_start(values: Values, start: pathlib.Path, workdir: pathlib.Path | None) -> Values:
    if workdir and newest_step(workdir) is not None:
        start = workdir
    task = values["task"]
    started, network = read_network(start, "config.run.start_from")
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
    if task["model"].get("image_size") == 0:
        model["image_size"] = network.image_size
    task = task | {"model": model}
    if model.get("image_size", network.image_size) == network.image_size:
        task |= _masks_of(started.task, task)
    for name in (TEXT_TOKENIZER, VISUAL_TOKENIZER):
        if task.get(name) == "" and (start / name).is_dir():
            task[name] = str(start / name)
    return values | {"task": task}


def _masks_of(started: Any, task: Values) -> Values:
    """Returns the sections of streams in which masks that are left open are those of the start.

    Accuracies before and after can then be compared.
    """
    masks = {}
    for name, section in task.items():
        stream = getattr(started, name, None)
        if isinstance(section, Mapping) and isinstance(stream, ImageStreamConfig):
            left_open = {key for key, follows in _OPEN_MASKS.items() if section.get(key) == follows}
            masks[name] = {**section, **{key: getattr(stream, key) for key in left_open}}
    return masks
