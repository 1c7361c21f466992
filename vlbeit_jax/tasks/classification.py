"""What classification of images and of texts share: description, warm start, data, evaluation."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar, Self

import jax

from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.config.schema import AT_LEAST_0, OPEN_SHARE, one_of, section, setting
from vlbeit_jax.config.streams import StreamConfig
from vlbeit_jax.data.examples.base import Spec
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.classifier import Classifier
from vlbeit_jax.objectives.mixing import Mixing
from vlbeit_jax.objectives.supervised import Supervised
from vlbeit_jax.shapes import Tree
from vlbeit_jax.tasks import base
from vlbeit_jax.tasks.assets import classes_of
from vlbeit_jax.tasks.backbone_start import backbone_start
from vlbeit_jax.tasks.text_problems import padding_problems
from vlbeit_jax.training.warm_start import WarmStart
from vlbeit_jax.types import Kind, Modality


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification:
    """A task with one stream of labelled examples; see ``tasks.base.Task``.

    Attributes:
      class_names: in the order of the logits, as ``resolve`` or ``open`` finds them.
    """

    modality: ClassVar[Modality]
    records: ClassVar[Kind]

    model: ModelConfig = section(ModelConfig, "Multiway Transformer, as in run.start_from")
    classes: int = setting(0, "number of classes; 0: as many as the first source has", AT_LEAST_0)
    smoothing: float = setting(0.1, "share of each target spread over all classes", OPEN_SHARE)
    pool: str = setting(
        "mean", "state before the head: of CLS, or the mean of the others", one_of("mean", "cls")
    )
    class_names: tuple[str, ...] = ()

    @property
    def schedule(self) -> str:
        """The only stream, in every step."""
        raise NotImplementedError

    @property
    def stream(self) -> StreamConfig:
        """Settings of the stream."""
        return getattr(self, self.schedule)

    @property
    def num_classes(self) -> int:
        """Number of logits.

        Raises:
          UsageError: nothing tells it.
        """
        count = self.classes or len(self.class_names)
        if not count:
            raise UsageError("task.classes=0: without data, set the number of classes")
        return count

    @property
    def network(self) -> Classifier:
        """Backbone and head."""
        return Classifier(self.model, self.num_classes, self.modality, self.pool)

    def mixing(self) -> Mixing:
        """Returns how rows are mixed in training; by default, not at all."""
        return Mixing()

    def example_specs(self) -> dict[str, Spec]:
        """Returns the shapes and types of a training row."""
        raise NotImplementedError

    def row_tokens(self) -> int:
        """Returns the tokens of a row."""
        raise NotImplementedError

    def problems(self) -> Iterable[str]:
        """See ``tasks.base.Task``."""
        if self.classes == 1:
            yield "classes=1: must be at least 2, or 0"

    def training_problems(self) -> Iterable[str]:
        """See ``tasks.base.Task``."""
        yield from self.stream.training_problems(self.schedule)
        yield from padding_problems(self.model)
        if self.mixing() and self.stream.batch_size % 2:
            yield (
                f"{self.schedule}.batch_size={self.stream.batch_size} must be even with mixup or "
                "cutmix, which mix the first row with the last, and so on"
            )

    def resolve(self) -> Self:
        """Returns the task with the names of the classes, from the first source.

        Raises:
          UsageError: the source is missing or of another kind, or has another number of classes
            than the setting.
        """
        names = classes_of(self.stream.sources[0], self.records, self.classes)
        return dataclasses.replace(self, class_names=names)

    def init(self, key: jax.Array) -> Tree:
        """Returns the parameters, boxed with their ``ParamInfo``."""
        return self.network.init(key, method="init_all")["params"]

    def streams(self) -> Mapping[str, base.Stream]:
        """Returns the only stream."""
        return {
            self.schedule: base.Stream(
                objective=Supervised(self.network, self.smoothing, self.mixing()),
                example=self.example_specs(),
                batch_size=self.stream.batch_size,
                tokens=self.row_tokens(),
            )
        }

    def frozen(self) -> Tree:
        """Returns nothing: all parameters are trained."""
        return {}

    def warm_start(self) -> WarmStart:
        """Returns rules for any run with this backbone: the head is new."""
        return backbone_start(self.model, (self.modality,), fresh=("head/*",))

    def open(self, folder: Path | None = None) -> base.OpenTask:
        """See ``tasks.base.Task``."""
        raise NotImplementedError
