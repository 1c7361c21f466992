"""A pretraining model with its tokenizers but without training data: what pretraining, evaluation and the report share."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh

from vlbeit_jax.config import Config, StreamConfig
from vlbeit_jax.data import pipeline
from vlbeit_jax.data.cached_tokens import CachedTokens, cached_tokens
from vlbeit_jax.data.examples.masked import MaskedExample
from vlbeit_jax.data.records import Records
from vlbeit_jax.data.sampling import EvaluationExamples
from vlbeit_jax.data.shard import HostShard
from vlbeit_jax.data.source import PreparedSet
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.errors import UsageError
from vlbeit_jax.metrics.masked import Scores
from vlbeit_jax.models.visual_tokenizer import cast_tokenizer
from vlbeit_jax.models.vlbeit import VLBEiT
from vlbeit_jax.objectives.masked_prediction import MaskedPrediction
from vlbeit_jax.tasks.scoring import score
from vlbeit_jax.tasks.visual_tokens import VisualTokens, keep_copy, open_visual_tokens
from vlbeit_jax.training.sharding import padded_batch, put_replicated
from vlbeit_jax.types import Stream

TEXT_TOKENIZER, VISUAL_TOKENIZER = "text_tokenizer", "visual_tokenizer"
Tree = Any


class MaskedModel:
    """The network, an objective per stream, and the tokenizers that give inputs and targets.

    Attributes:
      config: the whole configuration.
      objectives: by stream.
      frozen: parameters of the visual tokenizer.
    """

    def __init__(
        self,
        config: Config,
        streams: Sequence[Stream],
        text_tokenizer: str | Path,
        visual_tokenizer: str | Path,
    ):
        """Opens the tokenizers that the streams need, and checks that they fit the model.

        Raises:
          UsageError: one is missing or does not fit.
        """
        self.config = config
        self.network = VLBEiT(config.model)
        self._text = (
            TextTokenizer(text_tokenizer) if any(stream.has_text for stream in streams) else None
        )
        self._visual = (
            open_visual_tokens(visual_tokenizer)
            if any(stream.has_image for stream in streams)
            else None
        )
        self._check_fit()
        tokenizer: Any = (
            self._visual.tokenizer if self._visual else None
        )  # A stream of texts never asks for it.
        self.objectives = {
            stream: MaskedPrediction(stream, self.network, tokenizer) for stream in streams
        }
        self.frozen: Tree = (
            cast_tokenizer(self._visual.tokenizer, self._visual.frozen) if self._visual else {}
        )

    @property
    def text(self) -> TextTokenizer:
        """The text tokenizer; a ``UsageError`` if no stream has text."""
        if self._text is None:
            raise UsageError("this model was trained without texts and has no text tokenizer")
        return self._text

    @property
    def visual(self) -> VisualTokens:
        """The visual tokenizer; a ``UsageError`` if no stream has images."""
        if self._visual is None:
            raise UsageError("this model was trained without images and has no visual tokenizer")
        return self._visual

    @property
    def fingerprints(self) -> dict[str, str]:
        """Of the tokenizers."""
        found = {TEXT_TOKENIZER: self._text, VISUAL_TOKENIZER: self._visual}
        return {name: tokenizer.fingerprint for name, tokenizer in found.items() if tokenizer}

    def stream_config(self, stream: Stream) -> StreamConfig:
        """The stream's part of the configuration."""
        return getattr(self.config.data, stream)

    def init_params(self, key: jax.Array) -> Tree:
        """Fresh parameters of every path, boxed with their logical axes."""
        return self.network.init(key, method="init_all")["params"]

    def abstract_params(self) -> Tree:
        """Shapes of the parameters."""
        return nn.unbox(jax.eval_shape(self.init_params, jax.random.key(0)))

    def make_example(self, stream: Stream, augment: bool) -> MaskedExample:
        """How this stream's records become examples."""
        model = self.config.model
        image_size, tokenizer = (
            model.image_size if stream.has_image else 0,
            self._text if stream.has_text else None,
        )
        return MaskedExample(self.stream_config(stream), image_size, model.grid, tokenizer, augment)

    def cached_tokens(self, stream: Stream, found: PreparedSet) -> CachedTokens:
        """Where the visual tokens of a set's views lie, whether they were made or not."""
        config = self.config
        return cached_tokens(
            config.data.visual_tokens,
            found,
            self.stream_config(stream),
            config.model.image_size,
            self.visual.fingerprint,
        )

    def score(
        self,
        stream: Stream,
        params: Tree,
        records: Records,
        mesh: Mesh,
        *,
        draws: int = 1,
        batches: int = 0,
        shard: HostShard = HostShard(),
    ) -> dict[str, Scores]:
        """Scores of each term of a stream over some records; masks depend on the seed and the place of a record alone."""
        config = self.config
        batch_size = padded_batch(self.stream_config(stream).batch_size, mesh)
        examples = EvaluationExamples(
            records,
            self.make_example(stream, False),
            batch_size,
            seed=config.run.seed,
            repeats=draws,
            max_batches=batches,
        )
        found = pipeline.batches(examples, batch_size, shard=shard, loader=config.data)
        return score(
            self.objectives[stream], params, put_replicated(self.frozen, mesh), found, mesh
        )

    def keep_tokenizers(self, workdir: Path) -> None:
        """Copies both tokenizers into a run, so that it can be used without the folders that they came from."""
        if self._text:
            shutil.copytree(self.text.folder, workdir / TEXT_TOKENIZER, dirs_exist_ok=True)
        if self._visual:
            keep_copy(self.visual, workdir / VISUAL_TOKENIZER)

    def _check_fit(self) -> None:
        model = self.config.model
        if self._text and self.text.vocabulary != model.vocabulary:
            raise UsageError(
                f"the text tokenizer in {self.text.folder} has {self.text.vocabulary} pieces, but model.vocabulary={model.vocabulary}"
            )
        if self._visual:
            visual, where = (
                self.visual.tokenizer.config,
                f"the visual tokenizer in {self.visual.folder}",
            )
            if visual.codes != model.codes:
                raise UsageError(f"{where} has codes={visual.codes}, but model.codes={model.codes}")
            if visual.grid != model.grid:
                raise UsageError(
                    f"{where} cuts images of {visual.image_size} px into {visual.grid} x {visual.grid} patches, but the model "
                    f"(model.image_size={model.image_size}, model.patch_size={model.patch_size}) into {model.grid} x {model.grid}"
                )
            if model.image_size % visual.image_size:
                raise UsageError(
                    f"{where} has image_size={visual.image_size}, of which model.image_size={model.image_size} is not a multiple"
                )
