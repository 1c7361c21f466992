"""The training sets of pretraining."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlbeit_jax.config.common import RunConfig
from vlbeit_jax.config.streams import ImageStreamConfig
from vlbeit_jax.data.cached_tokens import CachedTokens, require_all
from vlbeit_jax.data.sampling import TrainingExamples
from vlbeit_jax.data.source import PreparedSet
from vlbeit_jax.data.sources import open_sources, require_validation
from vlbeit_jax.data.splits import require_apart, seen_by, write_seen
from vlbeit_jax.tasks.assets import TEXT_TOKENIZER


class PretrainData:
    """The training sets of every stream; see ``tasks.base.TrainingData``.

    Attributes:
      sets: by stream.
    """

    def __init__(self, model: Any, run: RunConfig):
        """Opens the sets of an ``OpenPretrain``, and checks them against it and each other."""
        self._model, self._seed = model, run.seed
        pieces = model.fingerprints.get(TEXT_TOKENIZER, "")
        self.sets = {
            stream: open_sources(stream, model.stream_config(stream), pieces)
            for stream in model.objectives
        }
        self._all = [each for sets in self.sets.values() for each in sets]
        require_apart(self._all)
        if run.evaluate_every:
            require_validation([sets[0] for sets in self.sets.values()])
        self._cached = self._cached_tokens() if model.task.visual_tokens else {}

    @property
    def fingerprints(self) -> Mapping[str, Any]:
        """The fingerprints of the sets, by stream."""
        return {
            f"task.{stream}.sources": [each.fingerprint for each in sets]
            for stream, sets in self.sets.items()
        }

    @property
    def trained_on(self) -> Sequence[str]:
        """Fingerprints of everything in the sets."""
        return sorted({name for each in self._all for name in each.contains})

    @property
    def sources(self) -> Mapping[str, Sequence[PreparedSet]]:
        """The sets of every stream."""
        return self.sets

    def examples(self, stream: str) -> TrainingExamples:
        """Returns the stream's endless examples."""
        return TrainingExamples(
            stream,
            self.sets[stream],
            self._model.make_example(stream, True),
            seed=self._seed,
            weights=self._model.stream_config(stream).weights,
            cached=self._cached.get(stream, ()),
        )

    def save_seen(self, folder: Path) -> None:
        """Writes the keys of the images and texts that are trained on."""
        write_seen(folder, seen_by(self._all))

    def _cached_tokens(self) -> dict[str, list[CachedTokens]]:
        by_stream = {}
        for stream, sets in self.sets.items():
            if isinstance(self._model.stream_config(stream), ImageStreamConfig):
                by_stream[stream] = [self._model.cached_tokens(stream, each) for each in sets]
                for cached, each in zip(by_stream[stream], sets, strict=True):
                    require_all(cached, each)
        return by_stream
