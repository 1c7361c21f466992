"""Visual reasoning: whether a statement is true of two images together (NLVR2; BEiT-3, VLMo)."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

import jax

from vlbeit_jax.config.finetune import PairedStreamConfig
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.config.schema import section, setting
from vlbeit_jax.data.examples.statements import statement_specs
from vlbeit_jax.models.reasoner import IMAGES, Reasoner
from vlbeit_jax.objectives.judging import STATEMENT, Judging
from vlbeit_jax.shapes import Tree
from vlbeit_jax.tasks import base
from vlbeit_jax.tasks.assets import TEXT_TOKENIZER
from vlbeit_jax.tasks.backbone_start import backbone_start
from vlbeit_jax.tasks.open_visual_reasoning import OpenVisualReasoning
from vlbeit_jax.tasks.text_problems import padding_problems, text_problems
from vlbeit_jax.training.warm_start import WarmStart
from vlbeit_jax.types import Modality

# Of the second image, which is the first one's in a start that has none (VLMo).
COPIES = (("vision_embed/second_type", "vision_embed/type"),)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisualReasoning:
    """The task; see ``tasks.base.Task``.

    Images are not flipped by default: many statements name a side, and not always by a word that
    ``data.examples.paired.names_a_side`` knows. The two images of a row never change places.
    """

    kind: ClassVar[str] = "visual_reasoning"
    schedule: ClassVar[str] = STATEMENT

    model: ModelConfig = section(
        lambda: ModelConfig(image_size=224, text_positions=64), "Multiway Transformer"
    )
    statement: PairedStreamConfig = section(
        lambda: PairedStreamConfig(batch_size=256, flip=0.0, rand_augment="none"),
        "two images with a statement; sets of statements",
    )
    text_tokenizer: str = setting("", "folder made by vlbeit_jax.text_tokenizer", may_change=True)

    @property
    def network(self) -> Reasoner:
        """The network."""
        return Reasoner(self.model)

    def problems(self) -> Iterable[str]:
        """See ``tasks.base.Task``."""
        return ()

    def training_problems(self) -> Iterable[str]:
        """See ``tasks.base.Task``."""
        length = self.statement.text_length
        yield from self.statement.training_problems(STATEMENT)
        yield from padding_problems(self.model)
        yield from text_problems(STATEMENT, length, self.model, self.text_tokenizer)

    def resolve(self) -> "VisualReasoning":
        """Returns the task unchanged: nothing follows from its data."""
        return self

    def init(self, key: jax.Array) -> Tree:
        """Returns parameters, boxed with their ``ParamInfo``."""
        return self.network.init(key, method="init_all")["params"]

    def streams(self) -> Mapping[str, base.Stream]:
        """Returns the stream of statements."""
        stream = base.Stream(
            objective=Judging(self.network),
            example=statement_specs(self.statement, self.model.image_size),
            batch_size=self.statement.batch_size,
            tokens=IMAGES * (self.model.patches + 1 + self.statement.text_length),
        )
        return {STATEMENT: stream}

    def frozen(self) -> Tree:
        """Returns nothing: all parameters are trained."""
        return {}

    def warm_start(self) -> WarmStart:
        """Returns rules for a start of any task.

        The head is always fresh. The type of the second image is the start's; where it has none, a
        copy of the first image's.
        """
        return backbone_start(self.model, tuple(Modality), fresh=("head/*",), copies=COPIES)

    def open(self, folder: Path | None = None) -> OpenVisualReasoning:
        """Opens the tokenizer: the one that the settings name, or a run's copy.

        Raises:
          UsageError: it is missing or does not fit the model.
        """
        return OpenVisualReasoning(self, folder / TEXT_TOKENIZER if folder else self.text_tokenizer)
