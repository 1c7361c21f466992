"""Training of the visual tokenizer: VQ-KD on images alone (BEiT v2)."""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vlbeit_jax.config import Config, ModelConfig, VisualTokenizerConfig
from vlbeit_jax.config_schema import fixed_settings
from vlbeit_jax.data.examples.images import image_specs
from vlbeit_jax.models.params import Tree
from vlbeit_jax.models.teacher import Teacher
from vlbeit_jax.objectives.distillation import Distillation
from vlbeit_jax.tasks import base
from vlbeit_jax.tasks.open_vqkd import OpenVQKD, make_tokenizer
from vlbeit_jax.tasks.teachers import (
    describe_teacher,
    read_teacher,
    teacher_shapes,
)
from vlbeit_jax.training.schedule import Schedule, schedule_problems, stream_problems
from vlbeit_jax.training.warm_start import WarmStart
from vlbeit_jax.types import Stream


def model_problems(model: ModelConfig | VisualTokenizerConfig, path: str) -> Iterable[str]:
    """Returns what is wrong with the sizes of a Transformer over patches."""
    if model.image_size % model.patch_size:
        yield (
            f"{path}.image_size={model.image_size} must be a multiple of "
            f"patch_size={model.patch_size}"
        )
    if model.width % model.heads:
        yield f"{path}.width={model.width} must be a multiple of heads={model.heads}"


@dataclasses.dataclass(frozen=True)
class VQKD:
    """The task; see ``tasks.base.Task``.

    Attributes:
      config: the whole configuration.
      teacher: what the decoder predicts; None: a teacher as the configuration describes it.
        ``resolve`` reads it from the folder that is named.
    """

    config: Config
    teacher: Teacher | None = None

    def problems(self) -> Iterable[str]:
        """See ``tasks.base.Task``."""
        schedule = self.config.run.schedule
        yield from model_problems(self.config.visual_tokenizer, "config.visual_tokenizer")
        wrong = list(schedule_problems(schedule, tuple(Stream)))
        yield from wrong
        if not wrong and Schedule.parse(schedule).streams != [Stream.IMAGE]:
            yield f"config.run.schedule={schedule!r}: VQ-KD trains on 'image' alone"
        image, accumulate = self.config.data.image, self.config.run.accumulate
        yield from stream_problems(image, Stream.IMAGE, accumulate)

    def must_match(self) -> dict[str, Any]:
        """Returns the tokenizer's settings, and the stream's batch size and mixture."""
        found = fixed_settings(self.config.visual_tokenizer, "visual_tokenizer")
        return found | base.stream_settings(self.config, Stream.IMAGE)

    def resolve(self) -> "VQKD":
        """Returns the task with the teacher of the folder that is named.

        Raises:
          UsageError: there is no such teacher in it.
        """
        return dataclasses.replace(self, teacher=read_teacher(self.config.visual_tokenizer))

    def init(self, key: jax.Array) -> Tree:
        """Returns a fresh encoder and decoder, boxed with their ``ParamInfo``."""
        visual = self.config.visual_tokenizer
        image = jnp.zeros((1, visual.image_size, visual.image_size, 3), jnp.uint8)
        codebook = jnp.zeros((visual.codes, visual.code_width))
        return make_tokenizer(visual).init(key, image, codebook)["params"]

    def streams(self) -> Mapping[str, base.Stream]:
        """Returns the images' stream."""
        visual, batch_size = self.config.visual_tokenizer, self.config.data.image.batch_size
        stream = base.Stream(
            objective=Distillation(make_tokenizer(visual), self._teacher(), batch_size),
            example=image_specs(visual.image_size),
            batch_size=batch_size,
            tokens=visual.grid**2 + 1,
        )
        return {str(Stream.IMAGE): stream}

    def frozen(self) -> Tree:
        """Returns the shapes of the teacher's parameters."""
        return teacher_shapes(self._teacher())

    def _teacher(self) -> Teacher:
        return self.teacher or describe_teacher(self.config.visual_tokenizer)

    def warm_start(self) -> WarmStart:
        """Returns no rules: a start must have the same parameters."""
        return WarmStart()

    def open(self, folder: pathlib.Path | None = None) -> OpenVQKD:
        """Opens the teacher; a run keeps no copy of it.

        Raises:
          UsageError: the teacher's weights are missing or do not fit.
        """
        return OpenVQKD(self.resolve())
