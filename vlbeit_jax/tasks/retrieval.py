"""Retrieval between images and texts: contrast of two encoders, optionally with matching."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

import jax

from vlbeit_jax.config.finetune import PairedStreamConfig
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.config.schema import AT_LEAST_0, Bound, section, setting
from vlbeit_jax.data.examples.paired import caption_specs
from vlbeit_jax.models.retrieval import DualEncoder
from vlbeit_jax.objectives.contrastive import Contrastive
from vlbeit_jax.objectives.matching import ContrastiveAndMatching
from vlbeit_jax.shapes import Tree
from vlbeit_jax.tasks import base
from vlbeit_jax.tasks.assets import TEXT_TOKENIZER
from vlbeit_jax.tasks.backbone_start import backbone_start
from vlbeit_jax.tasks.open_retrieval import PAIR, OpenRetrieval
from vlbeit_jax.tasks.text_problems import padding_problems, text_problems
from vlbeit_jax.training.warm_start import WarmStart
from vlbeit_jax.types import Modality


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieval:
    """The task; see ``tasks.base.Task``."""

    kind: ClassVar[str] = "retrieval"
    schedule: ClassVar[str] = PAIR

    model: ModelConfig = section(
        lambda: ModelConfig(image_size=384, text_positions=64), "Multiway Transformer"
    )
    pair: PairedStreamConfig = section(
        lambda: PairedStreamConfig(batch_size=3072, rand_augment="none"),
        "images with captions; sets of pairs",
    )
    text_tokenizer: str = setting("", "folder made by vlbeit_jax.text_tokenizer", may_change=True)
    features: int = setting(
        0, "length of the vectors that are compared; 0: as wide as the model", AT_LEAST_0
    )
    max_scale: float = setting(
        100.0,
        "what similarities are multiplied by at most (CLIP's bound); 0: no bound, as in BEiT-3",
        Bound("0 or >= 1", lambda value: value == 0 or value >= 1),
    )
    matching: bool = setting(
        False, "also learn whether a pair belongs together, for re-ranking: about 4 times the cost"
    )
    negatives_among: int = setting(
        0,
        "rows of a group within which wrong partners for matching are drawn; 0: the whole batch",
        AT_LEAST_0,
    )
    rerank: int = setting(
        32, "best candidates that evaluation re-ranks by matching", AT_LEAST_0, may_change=True
    )
    keep_head: bool = setting(
        False, "start with the projections of run.start_from, which must then be a retrieval run"
    )

    @property
    def reranks(self) -> bool:
        """Whether evaluation orders the best candidates again by matching."""
        return self.matching and self.rerank > 0

    @property
    def network(self) -> DualEncoder:
        """The network."""
        return DualEncoder(self.model, self.features or self.model.width, self.matching)

    @property
    def objective(self) -> Contrastive:
        """The loss."""
        if self.matching:
            return ContrastiveAndMatching(self.network, self.max_scale, self.negatives_among)
        return Contrastive(self.network, self.max_scale)

    def problems(self) -> Iterable[str]:
        """See ``tasks.base.Task``."""
        group, rows = self.negatives_among, self.pair.batch_size
        if group and not self.matching:
            yield f"negatives_among={group} has no use with matching=False"
        elif group == 1 or (group and rows % group):
            yield (
                f"negatives_among={group} must be at least 2 and divide pair.batch_size={rows}; "
                "0 is the whole batch"
            )

    def training_problems(self) -> Iterable[str]:
        """See ``tasks.base.Task``."""
        length = self.pair.text_length
        yield from self.pair.training_problems(PAIR)
        yield from padding_problems(self.model)
        yield from text_problems(PAIR, length, self.model, self.text_tokenizer)
        if self.pair.batch_size < 2:
            yield "pair.batch_size=1: a pair is contrasted with the others of its batch"

    def resolve(self) -> "Retrieval":
        """Returns the task as it is: no folder defines any of its sizes."""
        return self

    def init(self, key: jax.Array) -> Tree:
        """Returns parameters, boxed with their ``ParamInfo``."""
        return self.network.init(key, method="init_all")["params"]

    def streams(self) -> Mapping[str, base.Stream]:
        """Returns the stream of pairs."""
        stream = base.Stream(
            objective=self.objective,
            example=caption_specs(self.pair, self.model.image_size),
            batch_size=self.pair.batch_size,
            tokens=self.model.patches + 1 + self.pair.text_length,
        )
        return {PAIR: stream}

    def frozen(self) -> Tree:
        """Returns nothing: all parameters are trained."""
        return {}

    def warm_start(self) -> WarmStart:
        """Returns rules for a start of any task; projections are fresh unless they are kept."""
        fresh = () if self.keep_head else ("head/*",)
        return backbone_start(self.model, tuple(Modality), fresh=fresh)

    def open(self, folder: Path | None = None) -> OpenRetrieval:
        """Opens the tokenizer that the settings name, or a run's copy.

        Raises:
          UsageError: it is missing or does not fit the model.
        """
        return OpenRetrieval(self, folder / TEXT_TOKENIZER if folder else self.text_tokenizer)
