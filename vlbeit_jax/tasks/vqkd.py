"""Training of the visual tokenizer: VQ-KD on images alone (BEiT v2)."""

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from vlbeit_jax.config.networks import VisualTokenizerConfig
from vlbeit_jax.config.schema import section
from vlbeit_jax.config.streams import ViewStreamConfig
from vlbeit_jax.data.examples.images import image_specs
from vlbeit_jax.models.teacher import Teacher
from vlbeit_jax.objectives.distillation import Distillation
from vlbeit_jax.shapes import Tree
from vlbeit_jax.tasks import base
from vlbeit_jax.tasks.open_vqkd import IMAGE, OpenVQKD, make_tokenizer
from vlbeit_jax.tasks.teachers import describe_teacher, read_teacher, teacher_shapes
from vlbeit_jax.training.warm_start import WarmStart


@dataclasses.dataclass(frozen=True, kw_only=True)
class VQKD:
    """The task; see ``tasks.base.Task``.

    Attributes:
      opened_teacher: the teacher that ``resolve`` has read; None: one that ``model`` describes.
    """

    kind: ClassVar[str] = "vqkd"
    schedule: ClassVar[str] = IMAGE
    no_averages: ClassVar[str] = (
        "averaged parameters would not fit the codebook, which follows the raw ones, and no "
        "tokenizer is made of them; set it to 0"
    )

    model: VisualTokenizerConfig = section(VisualTokenizerConfig, "encoder, codebook, decoder")
    image: ViewStreamConfig = section(ViewStreamConfig, "images")
    opened_teacher: Teacher | None = None

    def problems(self) -> Iterable[str]:
        """See ``tasks.base.Task``."""
        return ()

    def training_problems(self) -> Iterable[str]:
        """See ``tasks.base.Task``."""
        return self.image.training_problems(IMAGE)

    def resolve(self) -> "VQKD":
        """Returns the task with the teacher of the folder that is named.

        Raises:
          UsageError: there is no such teacher in it.
        """
        return dataclasses.replace(self, opened_teacher=read_teacher(self.model))

    def init(self, key: jax.Array) -> Tree:
        """Returns a fresh encoder and decoder, boxed with their ``ParamInfo``."""
        model = self.model
        image = jnp.zeros((1, model.image_size, model.image_size, 3), jnp.uint8)
        codebook = jnp.zeros((model.codes, model.code_width))
        return make_tokenizer(model).init(key, image, codebook)["params"]

    def streams(self) -> Mapping[str, base.Stream]:
        """Returns the images' stream."""
        model, batch_size = self.model, self.image.batch_size
        stream = base.Stream(
            objective=Distillation(make_tokenizer(model), self._teacher(), batch_size),
            example=image_specs(model.image_size),
            batch_size=batch_size,
            tokens=model.grid**2 + 1,
        )
        return {IMAGE: stream}

    def frozen(self) -> Tree:
        """Returns the shapes of the teacher's parameters."""
        return teacher_shapes(self._teacher())

    def _teacher(self) -> Teacher:
        return self.opened_teacher or describe_teacher(self.model)

    def warm_start(self) -> WarmStart:
        """Returns no exceptions: all parameters of a start must match."""
        return WarmStart()

    def open(self, folder: pathlib.Path | None = None) -> OpenVQKD:
        """Opens the teacher; a run keeps no copy of it.

        Raises:
          UsageError: the teacher's weights are missing or do not fit.
        """
        return OpenVQKD(self.resolve())
