"""A pretraining model with its tokenizers, and its training data.

What pretraining, evaluation, the report and the cache of visual tokens share.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlbeit_jax.config.common import RunConfig
from vlbeit_jax.config.streams import ImageStreamConfig, StreamConfig, TextStreamConfig
from vlbeit_jax.data import pipeline
from vlbeit_jax.data.cached_tokens import CachedTokens, cached_tokens
from vlbeit_jax.data.examples.masked import MaskedExample
from vlbeit_jax.data.sampling import EvaluationExamples
from vlbeit_jax.data.source import VALIDATION, PreparedSet, Records
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.errors import UsageError
from vlbeit_jax.metrics.masked import Scores
from vlbeit_jax.models.visual_tokenizer import cast_tokenizer
from vlbeit_jax.models.vlbeit import VLBEiT
from vlbeit_jax.objectives.masked_prediction import TERMS, MaskedPrediction
from vlbeit_jax.places import copy_tree
from vlbeit_jax.shapes import Tree
from vlbeit_jax.tasks import assets
from vlbeit_jax.tasks.assets import TEXT_TOKENIZER, VISUAL_TOKENIZER, open_text_tokenizer
from vlbeit_jax.tasks.base import Evaluator, Place
from vlbeit_jax.tasks.figures import Headline
from vlbeit_jax.tasks.masked_reading import masked_reading
from vlbeit_jax.tasks.pretrain_data import PretrainData
from vlbeit_jax.tasks.probing import HEADLINES, PROBE, Probes
from vlbeit_jax.tasks.reading import Reading
from vlbeit_jax.tasks.scoring import score
from vlbeit_jax.tasks.visual_tokens import VisualTokens, keep_copy, open_visual_tokens
from vlbeit_jax.training.mesh import padded_batch, put_replicated
from vlbeit_jax.training.state import TrainState, declarations


class OpenPretrain:
    """The network, a loss per stream, and the tokenizers that give inputs and targets.

    Attributes:
      task: its description, a ``tasks.pretrain.Pretrain``.
      network: the model.
      objectives: by stream.
      tokenizer_params: parameters of the visual tokenizer; empty without images.
    """

    def __init__(
        self,
        task: Any,
        streams: Sequence[str],
        text_tokenizer: str | Path,
        visual_tokenizer: str | Path,
    ):
        """Opens the tokenizers that the streams need, and checks that they fit the model.

        Raises:
          UsageError: one is missing or does not fit.
        """
        self.task, self.network = task, VLBEiT(task.model)
        sections = [self.stream_config(stream) for stream in streams]
        has_text = any(isinstance(each, TextStreamConfig) for each in sections)
        has_image = any(isinstance(each, ImageStreamConfig) for each in sections)
        self._text = open_text_tokenizer(text_tokenizer, task.model) if has_text else None
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
        return {} if self.task.visual_tokens else self.tokenizer_params

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
        """The fingerprints of the tokenizers."""
        tokenizers = {TEXT_TOKENIZER: self._text, VISUAL_TOKENIZER: self._visual}
        return {name: tokenizer.fingerprint for name, tokenizer in tokenizers.items() if tokenizer}

    @property
    def chance(self) -> Mapping[str, float]:
        """Accuracy of a uniform guess, by loss."""
        return {
            name: 1 / objective.vocabulary(modality)
            for stream, objective in self.objectives.items()
            for modality, name in TERMS[stream].items()
        }

    @property
    def headlines(self) -> Sequence[Headline]:
        """Figures of the probes that log lines show; other lines have none of them."""
        return HEADLINES

    def stream_config(self, stream: str) -> StreamConfig:
        """Returns the settings of a stream."""
        return getattr(self.task, stream)

    def abstract_params(self) -> Tree:
        """Returns the shapes of the parameters."""
        return declarations(self.task.init).shapes

    def make_example(self, stream: str, augment: bool) -> MaskedExample:
        """Returns how this stream's records become examples."""
        model, section = self.task.model, self.stream_config(stream)
        tokenizer = self._text if isinstance(section, TextStreamConfig) else None
        return MaskedExample(section, model.image_size, model.grid, tokenizer, augment)

    def reading(self, stream: str) -> Reading:
        """See ``tasks.reading.Readable``."""
        return masked_reading(self, stream)

    def cached_tokens(self, stream: str, prepared: PreparedSet) -> CachedTokens:
        """Returns where the visual tokens of a set's views lie, whether they exist or not."""
        section = self.stream_config(stream)
        assert isinstance(section, ImageStreamConfig), stream
        return cached_tokens(
            self.task.visual_tokens,
            prepared,
            section,
            self.task.model.image_size,
            self.visual.fingerprint,
        )

    def score(
        self,
        stream: str,
        params: Tree,
        records: Records,
        place: Place,
        *,
        draws: int = 1,
        batches: int = 0,
        about: str = "",
        frozen: Tree = None,
    ) -> dict[str, Scores]:
        """Returns the scores of each loss of a stream over some records.

        Masks depend on the seed and on the position of a record alone.

        Args:
          stream: whose losses are scored.
          params: on the devices.
          records: of a kind that the stream takes.
          place: devices, seed, this host's rows.
          draws: masks per record.
          batches: stop after so many; 0: take all.
          about: the records, for the progress of a command.
          frozen: the visual tokenizer on the devices, if it is there already.
        """
        batch_size = padded_batch(self.stream_config(stream).batch_size, place.mesh)
        examples = EvaluationExamples(
            records,
            self.make_example(stream, False),
            batch_size,
            seed=place.run.seed,
            repeats=draws,
            max_batches=batches,
        )
        rows = pipeline.batches(examples, batch_size, shard=place.shard, loader=place.loader)
        return score(
            self.objectives[stream],
            params,
            frozen or put_replicated(self.tokenizer_params, place.mesh),
            rows,
            place.mesh,
            what=f"scoring {stream}{about}",
            total=min(len(records) * draws, len(examples)),
            each=batch_size,
        )

    def save_assets(self, folder: Path) -> None:
        """Copies both tokenizers into the run, which then no longer needs the original folders."""
        if self._text:
            copy_tree(self.text.folder, folder / TEXT_TOKENIZER)
        if self._visual:
            keep_copy(self.visual, folder / VISUAL_TOKENIZER)

    def training_data(self, run: RunConfig) -> PretrainData:
        """Opens the sets of every stream.

        Raises:
          UsageError: one is missing, of the wrong kind, or does not fit.
        """
        return PretrainData(self, run)

    def evaluators(self, data: PretrainData, place: Place) -> Sequence[Evaluator]:
        """Returns masked accuracy, unigram baseline and loss on held-out data, and the probes."""
        run, probes = functools.partial(self._evaluate, data, place), self.task.probes
        evaluators = [Evaluator("", place.run.evaluate_every, run)]
        if probes.every:
            opened = Probes(probes, self.task.model, self._text)
            evaluators.append(Evaluator(PROBE, probes.every, functools.partial(opened.run, place)))
        return evaluators

    def prepare_state(self, state: TrainState, data: PretrainData, place: Place) -> TrainState:
        """Returns the state unchanged: pretraining has nothing to prepare."""
        return state

    def _evaluate(
        self, data: PretrainData, place: Place, state: TrainState, frozen: Tree
    ) -> dict[str, float]:
        figures, batches = {}, place.run.evaluate_batches
        for stream, sets in data.sets.items():
            records = sets[0].records(VALIDATION)
            by_term = self.score(
                stream, state.params, records, place, batches=batches, frozen=frozen
            )
            for name, scores in by_term.items():
                figures |= {f"{name}/{kind}": value for kind, value in scores.summary().items()}
        return figures

    def _check_fit(self) -> None:
        model = self.task.model
        if not self._visual:
            return
        visual, where = self._visual.tokenizer.config, self._visual.folder
        where = f"the visual tokenizer in {where}"
        if visual.codes != model.codes:
            raise UsageError(
                f"{where} has codes={visual.codes}, but task.model.codes={model.codes}. "
                f"{assets.OTHER_TOKENIZER}; for visual tokens they are vision_head/*"
            )
        if visual.grid != model.grid:
            raise UsageError(
                f"{where} cuts images of {visual.image_size} px into {visual.grid} x "
                f"{visual.grid} patches, but the model (task.model.image_size={model.image_size}, "
                f"patch_size={model.patch_size}) into {model.grid} x {model.grid}"
            )
        if model.image_size % visual.image_size:
            raise UsageError(
                f"{where} has image_size={visual.image_size}; "
                f"task.model.image_size={model.image_size} must be a multiple of it"
            )
