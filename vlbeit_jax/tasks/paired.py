"""What question answering and retrieval share: one stream of images with texts."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlbeit_jax.config.common import RunConfig
from vlbeit_jax.config.finetune import PairedStreamConfig
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.data.examples.base import Transform
from vlbeit_jax.data.sampling import TrainingExamples
from vlbeit_jax.data.source import PreparedSet, open_set
from vlbeit_jax.data.sources import require_validation
from vlbeit_jax.data.splits import require_apart, seen_by, write_seen
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.errors import UsageError
from vlbeit_jax.types import Kind, Special


def paired_problems(
    name: str, stream: PairedStreamConfig, model: ModelConfig, text_tokenizer: str
) -> Iterable[str]:
    """Returns what keeps a task from training on a stream of images with texts."""
    yield from stream.training_problems(name)
    if model.pad != Special.PAD:
        yield f"model.pad={model.pad} must be {int(Special.PAD)}: data are padded with it here"
    if not 3 <= stream.text_length <= model.text_positions:
        yield (
            f"{name}.text_length={stream.text_length} must be in [3, "
            f"model.text_positions={model.text_positions}]"
        )
    if not text_tokenizer:
        yield (
            "text_tokenizer is empty: give the folder 'text_tokenizer' of the run that "
            "run.start_from names, or one made by vlbeit_jax.text_tokenizer"
        )


def open_text_tokenizer(place: str | Path, model: ModelConfig) -> TextTokenizer:
    """Opens a text tokenizer.

    Raises:
      UsageError: there is none, or it has another number of word pieces than the model.
    """
    tokenizer = TextTokenizer(place)
    if tokenizer.vocabulary != model.vocabulary:
        raise UsageError(
            f"the text tokenizer in {place} has {tokenizer.vocabulary} pieces, but "
            f"model.vocabulary={model.vocabulary}"
        )
    return tokenizer


def open_sets(stream: PairedStreamConfig, kind: Kind, run: RunConfig) -> list[PreparedSet]:
    """Opens the sources of a stream, and checks them against each other.

    Raises:
      UsageError: a set is missing or of another kind, holds back what another trains on, or has no
        held-back records although the run evaluates.
    """
    sets = [open_set(place, kind) for place in stream.sources]
    require_apart(sets)
    if run.evaluate_every:
        require_validation(sets[:1])
    return sets


class PairedData:
    """The training sets of one stream; see ``tasks.base.TrainingData``.

    Attributes:
      sets: in the order of the sources.
    """

    def __init__(
        self,
        name: str,
        stream: PairedStreamConfig,
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
        """Those of the sets."""
        return {f"task.{self._name}.sources": [each.fingerprint for each in self.sets]}

    @property
    def trained_on(self) -> Sequence[str]:
        """Fingerprints of everything in the sets."""
        return sorted({name for each in self.sets for name in each.contains})

    def examples(self, stream: str) -> TrainingExamples:
        """Returns the endless examples of the one stream."""
        return TrainingExamples(
            stream, self.sets, self._transform, seed=self._seed, weights=self._stream.weights
        )

    def save_seen(self, folder: Path) -> None:
        """Writes the keys of the images and texts that are trained on."""
        write_seen(folder, seen_by(self.sets))
