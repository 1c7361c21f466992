"""Completes a configuration: settings that follow from its tokenizers and its data.

A setting that is 0 or -1 and says so in its description follows from others. It is completed
before the run starts, so that the run's ``config.json`` states every number.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from vlbeit_jax.config.common import OptimizerConfig, RunConfig
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.config.schema import FOLLOWS, settings_of
from vlbeit_jax.config.streams import ImageStreamConfig, StreamConfig, TextStreamConfig
from vlbeit_jax.data.bad_records import BadRecord
from vlbeit_jax.data.source import TRAIN, PreparedSet, open_sets_once
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.assets import TEXT_TOKENIZER, VISUAL_TOKENIZER
from vlbeit_jax.tasks.fitting import mask_block, masked_patches
from vlbeit_jax.tasks.visual_tokens import describe_visual_tokens
from vlbeit_jax.training.schedule import Schedule
from vlbeit_jax.types import Kind, Special

DESCRIBED = "tokenizer_model"  # The section of a tokenizer that no folder needs to hold.
# Captions that are measured, and the share of them that must fit whole.
MEASURED_CAPTIONS, WHOLE_CAPTIONS = 1000, 0.99
LENGTH_STEP = 8  # Texts are as long as a multiple of it: larger ones suit accelerators.
LINES, PERIODS = 100, 10  # Log lines of a run; its evaluations and checkpoints.


def completed(config: Config) -> Config:
    """Returns a configuration in which every number that can be known is stated.

    Args:
      config: its fields are valid one by one.

    Raises:
      UsageError: a tokenizer or a data set that is named cannot be opened.
    """
    task, run, optimizer = config.task, config.run, config.optimizer
    if isinstance(getattr(task, "model", None), ModelConfig):
        task = _with_network(task)
        task = dataclasses.replace(task, **dict(_streams(task)))
    if run.steps == 0 and run.epochs:
        run = dataclasses.replace(run, steps=_steps(task, run))
    if run.steps:
        run, optimizer = _periods(run), _warmup(optimizer, run.steps)
    return dataclasses.replace(config, task=task, run=run, optimizer=optimizer)


def unknown(config: Config) -> Iterator[str]:
    """Returns what could not be completed, as where a command runs without data."""
    model = getattr(config.task, "model", None)
    if isinstance(model, ModelConfig):
        for name, needs in (
            ("vocabulary", TEXT_TOKENIZER),
            ("codes", VISUAL_TOKENIZER),
            ("image_size", VISUAL_TOKENIZER),
            ("patch_size", VISUAL_TOKENIZER),
        ):
            if not getattr(model, name):
                yield f"config.task.model.{name}=0: set it, or name a config.task.{needs}"
    if config.run.steps == 0:
        yield "config.run.steps=0: set it, or name the sources of every stream"


def _with_network(task: Any) -> Any:
    """Returns a task whose network has the sizes of the tokenizers."""
    model, sizes = task.model, {}
    used = _used(task)
    if not model.vocabulary:
        if place := getattr(task, TEXT_TOKENIZER, ""):
            sizes["vocabulary"] = TextTokenizer(place).vocabulary
        elif used and not any(_has_text(stream) for stream in used.values()):
            sizes["vocabulary"] = len(Special)  # Without texts, no other piece exists.
    if not (model.codes and model.image_size and model.patch_size):
        sizes |= _visual_sizes(task)
    return dataclasses.replace(task, model=dataclasses.replace(model, **sizes)) if sizes else task


def _visual_sizes(task: Any) -> dict[str, int]:
    """Returns the sizes that the visual tokenizer decides: the named or else the described one."""
    model, place = task.model, getattr(task, VISUAL_TOKENIZER, "")
    visual = describe_visual_tokens(place).config if place else getattr(task, DESCRIBED, None)
    if visual is None:
        return {}
    side = model.image_size or visual.image_size
    return {
        "codes": model.codes or visual.codes,
        "image_size": side,
        # A side that the grid does not divide is refused when the tokenizer is opened.
        "patch_size": model.patch_size or max(side // visual.grid, 1),
    }


def _streams(task: Any) -> Iterator[tuple[str, StreamConfig]]:
    """Yields every stream's section, completed. An evaluation may use one that training does not.

    A section has the stream's name.
    """
    model = task.model
    for name, stream in _sections(task):
        values: dict[str, int] = {}
        if isinstance(stream, ImageStreamConfig) and model.patch_size:
            if stream.num_masked_patches == FOLLOWS:
                values["num_masked_patches"] = masked_patches(model.patches)
            masked = values.get("num_masked_patches", stream.num_masked_patches)
            if stream.mask_block == 0:
                values["mask_block"] = mask_block(model.patches, masked)
        if isinstance(stream, TextStreamConfig) and stream.text_length == 0:
            values["text_length"] = _text_length(task, stream)
        yield name, dataclasses.replace(stream, **values)


def _text_length(task: Any, stream: StreamConfig) -> int:
    """Returns the length of packed rows, or that which nearly all captions need.

    Without sources or without a text tokenizer it is the longest text that the network can read.
    """
    longest, place = task.model.text_positions, getattr(task, TEXT_TOKENIZER, "")
    if not (stream.sources and place):
        return longest
    sets = open_sets_once(stream.sources, *stream.kinds)
    if packed := [each for each in sets if each.kind is Kind.TOKENS]:
        return packed[0].meta["length"]
    tokenizer = TextTokenizer(place)
    lengths = [len(tokenizer.encode(text)) + 2 for text in _captions(sets)]
    needed = float(np.quantile(lengths, WHOLE_CAPTIONS, method="inverted_cdf")) if lengths else 0
    return min(math.ceil(needed / LENGTH_STEP) * LENGTH_STEP or longest, longest)


def _captions(sets: Sequence[PreparedSet]) -> Iterator[str]:
    """Yields the captions of some training records of each set, evenly spaced."""
    for each in sets:
        if count := each.count(TRAIN):
            records = each.records(TRAIN)
            for index in np.unique(np.linspace(0, count - 1, MEASURED_CAPTIONS).astype(int)):
                # A record that cannot be used is left out here, and training counts it.
                with contextlib.suppress(BadRecord, UnicodeDecodeError):
                    yield from [caption.decode() for caption in records[int(index)]["captions"]]


def _steps(task: Any, run: RunConfig) -> int:
    """Returns the steps in which every stream has ``run.epochs`` times as many rows as records.

    Without weights, each record is then seen so often. It is 0 if a stream has no sources: that is
    a mistake of its own.
    """
    cycle, needed = Schedule.parse(task.schedule).cycle, 0.0
    for name, stream in _used(task).items():
        if not stream.sources:
            return 0
        records = sum(each.count(TRAIN) for each in open_sets_once(stream.sources))
        batches = run.epochs * records / stream.batch_size
        needed = max(needed, batches * len(cycle) / sum(name in streams for streams in cycle))
    return max(math.ceil(needed), run.min_steps)


def _periods(run: RunConfig) -> RunConfig:
    """Returns the periods of a run whose steps are known."""
    parts = {"log_every": LINES, "evaluate_every": PERIODS, "checkpoint_every": PERIODS}
    periods = {
        name: max(run.steps // part, 1)
        for name, part in parts.items()
        if getattr(run, name) == FOLLOWS
    }
    return dataclasses.replace(run, **periods)


def _warmup(optimizer: OptimizerConfig, steps: int) -> OptimizerConfig:
    if optimizer.warmup_steps != FOLLOWS:
        return optimizer
    return dataclasses.replace(optimizer, warmup_steps=int(optimizer.warmup_share * steps))


def _sections(task: Any) -> Iterable[tuple[str, StreamConfig]]:
    sections = ((field.name, getattr(task, field.name)) for field in settings_of(task))
    return [(name, section) for name, section in sections if isinstance(section, StreamConfig)]


def _used(task: Any) -> dict[str, StreamConfig]:
    """The sections of the streams of the schedule; a stream without a section is a mistake."""
    names = Schedule.parse(task.schedule).streams
    return {name: section for name, section in _sections(task) if name in names}


def _has_text(stream: StreamConfig) -> bool:
    return hasattr(stream, "text_length")
