"""A pretraining model with its tokenizers, and its training data.

What pretraining, evaluation, the report and the cache of visual tokens share.
"""

import functools
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from vlbeit_jax.config import StreamConfig
from vlbeit_jax.data import pipeline
from vlbeit_jax.data.cached_tokens import CachedTokens, cached_tokens
from vlbeit_jax.data.examples.masked import MaskedExample
from vlbeit_jax.data.sampling import EvaluationExamples
from vlbeit_jax.data.shard import HostShard
from vlbeit_jax.data.source import VALIDATION, PreparedSet, Records
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.errors import UsageError
from vlbeit_jax.metrics.masked import Scores
from vlbeit_jax.models.params import Tree
from vlbeit_jax.models.visual_tokenizer import cast_tokenizer
from vlbeit_jax.models.vlbeit import VLBEiT
from vlbeit_jax.objectives.masked_prediction import MaskedPrediction, terms_of
from vlbeit_jax.tasks.assets import TEXT_TOKENIZER, VISUAL_TOKENIZER
from vlbeit_jax.tasks.base import Evaluator
from vlbeit_jax.tasks.pretrain_data import PretrainData
from vlbeit_jax.tasks.scoring import score
from vlbeit_jax.tasks.visual_tokens import VisualTokens, keep_copy, open_visual_tokens
from vlbeit_jax.training.sharding import padded_batch, put_replicated
from vlbeit_jax.training.state import TrainState, declarations
from vlbeit_jax.types import Stream


class OpenPretrain:
    """The network, a loss per stream, and the tokenizers that give inputs and targets.

    Attributes:
      task: its description, a ``tasks.pretrain.Pretrain``.
      config: the whole configuration.
      network: the model.
      objectives: by stream.
      tokenizer_params: parameters of the visual tokenizer; empty without images.
    """

    def __init__(
        self,
        task: Any,
        streams: Sequence[Stream],
        text_tokenizer: str | Path,
        visual_tokenizer: str | Path,
    ):
        """Opens the tokenizers that the streams need, and checks that they fit the model.

        Raises:
          UsageError: one is missing or does not fit.
        """
        self.task, self.config = task, task.config
        self.network = VLBEiT(self.config.model)
        has_text = any(stream.has_text for stream in streams)
        has_image = any(stream.has_image for stream in streams)
        self._text = TextTokenizer(text_tokenizer) if has_text else None
        self._visual = open_visual_tokens(visual_tokenizer) if has_image else None
        self._check_fit()
        # A stream of texts never asks for the visual tokenizer.
        tokenizer: Any = self._visual.tokenizer if self._visual else None
        self.objectives = {
            stream: MaskedPrediction(stream, self.network, tokenizer) for stream in streams
        }
        self.tokenizer_params: Tree = {}
        if self._visual:
            self.tokenizer_params = cast_tokenizer(self._visual.tokenizer, self._visual.frozen)

    @property
    def frozen(self) -> Tree:
        """Parameters that a train step uses and never changes; none if visual tokens are cached."""
        return {} if self.config.data.visual_tokens else self.tokenizer_params

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
    def fingerprints(self) -> dict[str, Any]:
        """Those of the tokenizers."""
        found = {TEXT_TOKENIZER: self._text, VISUAL_TOKENIZER: self._visual}
        return {name: tokenizer.fingerprint for name, tokenizer in found.items() if tokenizer}

    @property
    def chance(self) -> Mapping[str, float]:
        """Accuracy of a uniform guess, by loss."""
        return {
            name: 1 / objective.vocabulary(modality)
            for stream, objective in self.objectives.items()
            for modality, name in terms_of(stream).items()
        }

    def stream_config(self, stream: Stream) -> StreamConfig:
        """Returns the stream's part of the configuration."""
        return getattr(self.config.data, stream)

    def abstract_params(self) -> Tree:
        """Returns the shapes of the parameters."""
        return declarations(self.task.init).shapes

    def make_example(self, stream: Stream, augment: bool) -> MaskedExample:
        """Returns how this stream's records become examples."""
        model = self.config.model
        image_size = model.image_size if stream.has_image else 0
        tokenizer = self._text if stream.has_text else None
        return MaskedExample(self.stream_config(stream), image_size, model.grid, tokenizer, augment)

    def cached_tokens(self, stream: Stream, found: PreparedSet) -> CachedTokens:
        """Returns where the visual tokens of a set's views lie, whether they exist or not."""
        return cached_tokens(
            self.config.data.visual_tokens,
            found,
            self.stream_config(stream),
            self.config.model.image_size,
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
        """Returns the scores of each loss of a stream over some records.

        Masks depend on the seed and on the position of a record alone.

        Args:
          stream: whose losses are scored.
          params: on the devices.
          records: of a kind that the stream takes.
          mesh: of devices.
          draws: masks per record.
          batches: stop after so many; 0: take all.
          shard: this host's rows.
        """
        batch_size = padded_batch(self.stream_config(stream).batch_size, mesh)
        examples = EvaluationExamples(
            records,
            self.make_example(stream, False),
            batch_size,
            seed=self.config.run.seed,
            repeats=draws,
            max_batches=batches,
        )
        found = pipeline.batches(examples, batch_size, shard=shard, loader=self.config.data)
        tokenizer = put_replicated(self.tokenizer_params, mesh)
        return score(self.objectives[stream], params, tokenizer, found, mesh)

    def save_assets(self, folder: Path) -> None:
        """Copies both tokenizers into a run, which then needs the original folders no more."""
        if self._text:
            shutil.copytree(self.text.folder, folder / TEXT_TOKENIZER, dirs_exist_ok=True)
        if self._visual:
            keep_copy(self.visual, folder / VISUAL_TOKENIZER)

    def training_data(self) -> PretrainData:
        """Opens the sets of every stream.

        Raises:
          UsageError: one is missing, of the wrong kind, or does not fit.
        """
        return PretrainData(self)

    def evaluators(self, data: PretrainData, mesh: Mesh, shard: HostShard) -> Sequence[Evaluator]:
        """Returns masked accuracy, unigram baseline and loss on held-back data."""
        run = functools.partial(self._evaluate, data, mesh, shard)
        return [Evaluator("", self.config.run.evaluate_every, run)]

    def prepare_state(
        self, state: TrainState, data: PretrainData, mesh: Mesh, shard: HostShard
    ) -> TrainState:
        """Returns the state as it is: pretraining starts from random parameters."""
        return state

    def _evaluate(
        self, data: PretrainData, mesh: Mesh, shard: HostShard, state: TrainState, frozen: Tree
    ) -> dict[str, float]:
        figures = {}
        for stream, sets in data.sets.items():
            found = self.score(
                stream,
                state.params,
                sets[0].records(VALIDATION),
                mesh,
                batches=self.config.run.evaluate_batches,
                shard=shard,
            )
            for name, scores in found.items():
                figures |= {f"{name}/{kind}": value for kind, value in scores.summary().items()}
        return figures

    def _check_fit(self) -> None:
        model = self.config.model
        if self._text and self.text.vocabulary != model.vocabulary:
            raise UsageError(
                f"the text tokenizer in {self.text.folder} has {self.text.vocabulary} pieces, but "
                f"model.vocabulary={model.vocabulary}"
            )
        if not self._visual:
            return
        visual, where = self._visual.tokenizer.config, self._visual.folder
        where = f"the visual tokenizer in {where}"
        if visual.codes != model.codes:
            raise UsageError(f"{where} has codes={visual.codes}, but model.codes={model.codes}")
        if visual.grid != model.grid:
            raise UsageError(
                f"{where} cuts images of {visual.image_size} px into {visual.grid} x "
                f"{visual.grid} patches, but the model (model.image_size={model.image_size}, "
                f"model.patch_size={model.patch_size}) into {model.grid} x {model.grid}"
            )
        if model.image_size % visual.image_size:
            raise UsageError(
                f"{where} has image_size={visual.image_size}, of which "
                f"model.image_size={model.image_size} is not a multiple"
            )
