"""Captioning: a network writes what an image shows, piece by piece (BEiT-3)."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

import jax

from vlbeit_jax.config.finetune import CaptionStreamConfig
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.config.schema import AT_LEAST_0, OPEN_SHARE, POSITIVE, section, setting
from vlbeit_jax.data.examples.captions import masked_caption_specs
from vlbeit_jax.models.captioner import Captioner
from vlbeit_jax.objectives.captioning import Captioning as Objective
from vlbeit_jax.ops.beam_search import Search
from vlbeit_jax.shapes import Tree
from vlbeit_jax.tasks import base
from vlbeit_jax.tasks.assets import TEXT_TOKENIZER
from vlbeit_jax.tasks.backbone_start import backbone_start
from vlbeit_jax.tasks.open_captioning import PAIR, OpenCaptioning
from vlbeit_jax.tasks.text_problems import padding_problems, text_problems
from vlbeit_jax.training.warm_start import WarmStart
from vlbeit_jax.types import Modality


@dataclasses.dataclass(frozen=True, kw_only=True)
class Captioning:
    """The task; see ``tasks.base.Task``."""

    kind: ClassVar[str] = "captioning"
    schedule: ClassVar[str] = PAIR

    model: ModelConfig = section(
        lambda: ModelConfig(image_size=480, text_positions=64), "Multiway Transformer"
    )
    pair: CaptionStreamConfig = section(CaptionStreamConfig, "images with captions; sets of pairs")
    text_tokenizer: str = setting("", "folder made by vlbeit_jax.text_tokenizer", may_change=True)
    smoothing: float = setting(
        0.1, "share of a target that is spread over all other word pieces", OPEN_SHARE
    )
    drop_worst: float = setting(
        0.0,
        "share of a step's masked pieces, those with the largest losses, that is left out; costs "
        "one more forward pass",
        OPEN_SHARE,
    )
    drop_worst_after: int = setting(0, "steps after which they are left out", AT_LEAST_0)
    beams: int = setting(
        3, "captions that are followed while one is written; 1: greedy", POSITIVE, may_change=True
    )
    length_penalty: float = setting(
        0.6,
        "a caption of n pieces is judged by its log-probability divided by n to this power",
        AT_LEAST_0,
        may_change=True,
    )

    @property
    def network(self) -> Captioner:
        """The network."""
        return Captioner(self.model)

    @property
    def search(self) -> Search:
        """How captions are searched for."""
        return Search(self.pair.text_length, self.beams, self.length_penalty)

    def problems(self) -> Iterable[str]:
        """See ``tasks.base.Task``."""
        if self.drop_worst_after and not self.drop_worst:
            yield f"drop_worst_after={self.drop_worst_after} has no use with drop_worst=0"

    def training_problems(self) -> Iterable[str]:
        """See ``tasks.base.Task``."""
        length = self.pair.text_length
        yield from self.pair.training_problems(PAIR)
        yield from padding_problems(self.model)
        yield from text_problems(PAIR, length, self.model, self.text_tokenizer)

    def resolve(self) -> "Captioning":
        """Returns the task as it is: no folder defines any of its sizes."""
        return self

    def init(self, key: jax.Array) -> Tree:
        """Returns parameters, boxed with their ``ParamInfo``."""
        return self.network.init(key, method="init_all")["params"]

    def streams(self) -> Mapping[str, base.Stream]:
        """Returns the stream of images with captions."""
        stream = base.Stream(
            objective=Objective(
                self.network, self.smoothing, self.drop_worst, self.drop_worst_after
            ),
            example=masked_caption_specs(self.pair, self.model.image_size),
            batch_size=self.pair.batch_size,
            tokens=self.model.patches + 1 + self.pair.text_length,
        )
        return {PAIR: stream}

    def frozen(self) -> Tree:
        """Returns nothing: all parameters are trained."""
        return {}

    def warm_start(self) -> WarmStart:
        """Returns rules for a start with a head of word pieces, which is kept."""
        return backbone_start(self.model, tuple(Modality), fresh=())

    def open(self, folder: Path | None = None) -> OpenCaptioning:
        """Opens the tokenizer that the settings name, or a run's copy.

        Raises:
          UsageError: it is missing or does not fit the model.
        """
        return OpenCaptioning(self, folder / TEXT_TOKENIZER if folder else self.text_tokenizer)
