"""The training sets of a task with one stream."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlbeit_jax.config.common import RunConfig
from vlbeit_jax.config.streams import StreamConfig
from vlbeit_jax.data.examples.base import Transform
from vlbeit_jax.data.sampling import TrainingExamples
from vlbeit_jax.data.source import PreparedSet, open_sets_once
from vlbeit_jax.data.sources import require_validation
from vlbeit_jax.data.splits import require_apart, seen_by, write_seen
from vlbeit_jax.types import Kind


def open_sets(stream: StreamConfig, kinds: Sequence[Kind], run: RunConfig) -> list[PreparedSet]:
    """Opens the sources of a stream, and checks them against each other.

    Args:
      stream: names the sources.
      kinds: that the task takes.
      run: tells whether held-out records are needed.

    Raises:
      UsageError: a set is missing or of another kind, holds out what another trains on, or has no
        held-out records although the run evaluates.
    """
    sets = open_sets_once(stream.sources, *kinds)
    require_apart(sets)
    if run.evaluate_every:
        require_validation(sets[:1])
    return sets


class OneStreamData:
    """Open sets with what makes examples of them; see ``tasks.base.TrainingData``.

    Attributes:
      sets: in the order of the sources.
    """

    def __init__(
        self,
        name: str,
        stream: StreamConfig,
        sets: Sequence[PreparedSet],
        transform: Transform,
        seed: int,
    ):
        """Takes open sets, and what makes an example of a training record.

        Args:
          name: of the stream.
          stream: its settings.
          sets: of ``open_sets``.
          transform: with augmentation.
          seed: of the run.
        """
        self.sets = list(sets)
        self._name, self._stream, self._transform, self._seed = name, stream, transform, seed

    @property
    def fingerprints(self) -> Mapping[str, Any]:
        """The fingerprints of the sets."""
        return {f"task.{self._name}.sources": [each.fingerprint for each in self.sets]}

    @property
    def trained_on(self) -> Sequence[str]:
        """Fingerprints of everything in the sets."""
        return sorted({name for each in self.sets for name in each.contains})

    @property
    def sources(self) -> Mapping[str, Sequence[PreparedSet]]:
        """The sets, by the name of the stream."""
        return {self._name: self.sets}

    def examples(self, stream: str) -> TrainingExamples:
        """Returns the endless examples of the one stream."""
        return TrainingExamples(
            stream, self.sets, self._transform, seed=self._seed, weights=self._stream.weights
        )

    def save_seen(self, folder: Path) -> None:
        """Writes the keys of the images and texts that are trained on."""
        write_seen(folder, seen_by(self.sets))
