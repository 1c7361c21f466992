"""Pretraining: masked prediction on images, texts and pairs with one shared Multiway Transformer."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from vlbeit_jax.config import Config
from vlbeit_jax.config_parse import schedule_cycle
from vlbeit_jax.data import pipeline
from vlbeit_jax.data.cached_tokens import CachedTokens, require_all
from vlbeit_jax.data.pipeline import Batches
from vlbeit_jax.data.sampling import TrainingExamples
from vlbeit_jax.data.shard import HostShard
from vlbeit_jax.data.source import VALIDATION
from vlbeit_jax.data.sources import open_sources, require_validation
from vlbeit_jax.data.splits import require_apart, seen_by, write_seen
from vlbeit_jax.objectives.base import Objective
from vlbeit_jax.objectives.masked_prediction import terms_of
from vlbeit_jax.tasks.masked_model import TEXT_TOKENIZER, MaskedModel
from vlbeit_jax.training.state import TrainState
from vlbeit_jax.types import Stream

Tree = Any


class Pretrain:
    """The task; see ``tasks.base.Task``."""

    def __init__(self, config: Config):
        """Opens tokenizers and the data of every stream of the schedule, and checks that they fit the model.

        Raises:
          UsageError: something is missing, of the wrong kind, or does not fit.
        """
        self.config = config
        self.streams = sorted(
            {stream for step in schedule_cycle(config.run.schedule) for stream in step}
        )
        self.model = MaskedModel(
            config, self.streams, config.data.text_tokenizer, config.data.visual_tokenizer
        )
        pieces = self.model.fingerprints.get(TEXT_TOKENIZER, "")
        self.sets = {
            stream: open_sources(stream, self.model.stream_config(stream), pieces)
            for stream in self.streams
        }
        self._all_sets = [found for sets in self.sets.values() for found in sets]
        require_apart(self._all_sets)
        if config.run.evaluate_every:
            require_validation([sets[0] for sets in self.sets.values()])
        # The order in which the step adds gradients.
        self.objectives: Mapping[str, Objective] = {
            stream: self.model.objectives[stream] for stream in Stream if stream in self.streams
        }
        self.cached = self._cached_tokens() if config.data.visual_tokens else {}
        self.frozen: Tree = {} if self.cached else self.model.frozen
        self.chance: Mapping[str, float] = {
            name: 1 / objective.vocabulary(modality)
            for stream, objective in self.model.objectives.items()
            for modality, name in terms_of(stream).items()
        }
        data = {
            f"data.{stream}": [found.fingerprint for found in sets]
            for stream, sets in self.sets.items()
        }
        self.fingerprints: Mapping[str, Any] = self.model.fingerprints | data
        self.trained_on: Sequence[str] = sorted(
            {name for found in self._all_sets for name in found.contains}
        )

    def init_params(self, key: jax.Array) -> Tree:
        """Fresh parameters of every path."""
        return self.model.init_params(key)

    def examples(self, stream: str) -> TrainingExamples:
        """The stream's endless examples."""
        name = Stream(stream)
        return TrainingExamples(
            stream,
            self.sets[name],
            self.model.make_example(name, True),
            seed=self.config.run.seed,
            weights=self.model.stream_config(name).weights,
            cached=self.cached.get(name, ()),
        )

    def training_batches(self, stream: str, start: int, shard: HostShard) -> Batches:
        """See ``data.pipeline``."""
        batch_size = self.model.stream_config(Stream(stream)).batch_size
        return pipeline.batches(self.examples(stream), batch_size, start, shard, self.config.data)

    def save_assets(self, workdir: pathlib.Path) -> None:
        """Copies both tokenizers, and the keys of what is trained on."""
        self.model.keep_tokenizers(workdir)
        write_seen(workdir, seen_by(self._all_sets))

    def before_training(self, state: TrainState, mesh: Mesh, shard: HostShard) -> TrainState:
        """Nothing: pretraining starts from random parameters."""
        return state

    def evaluate(self, state: TrainState, mesh: Mesh, shard: HostShard) -> dict[str, float]:
        """Masked accuracy, unigram baseline and loss of every term on the held-back part of each stream's first set."""
        figures = {}
        for stream in self.streams:
            records = self.sets[stream][0].records(VALIDATION)
            found = self.model.score(
                stream,
                state.params,
                records,
                mesh,
                batches=self.config.run.evaluate_batches,
                shard=shard,
            )
            for name, scores in found.items():
                figures |= {f"{name}/{kind}": value for kind, value in scores.summary().items()}
        return figures

    def _cached_tokens(self) -> dict[Stream, list[CachedTokens]]:
        found = {}
        for stream, sets in self.sets.items():
            if stream.has_image:
                found[stream] = [self.model.cached_tokens(stream, each) for each in sets]
                for cached, each in zip(found[stream], sets, strict=True):
                    require_all(cached, each)
        return found
