"""What question answering and retrieval share: one stream of images with texts, and its start."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vlbeit_jax.config.common import RunConfig
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.config.streams import PairedStreamConfig
from vlbeit_jax.data.examples.base import Transform
from vlbeit_jax.data.sampling import TrainingExamples
from vlbeit_jax.data.source import PreparedSet, open_set
from vlbeit_jax.data.sources import require_validation
from vlbeit_jax.data.splits import require_apart, seen_by, write_seen
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.errors import UsageError
from vlbeit_jax.tasks.base import Place
from vlbeit_jax.training.adapters import ResizeRelative, first_rows, resize_positions
from vlbeit_jax.training.mesh import on_mesh, padded_batch, put_batch
from vlbeit_jax.training.warm_start import WarmStart
from vlbeit_jax.types import Kind, Positions, Special

Tree = Any
# What a start may hold that a fine-tuned network has no use for: heads of pretraining and of other
# tasks, final norms before a head with its own, and experts that its inputs never reach.
UNNEEDED = (
    "vision_head/*",
    "language_head/*",
    "head/*",
    "pooler/*",
    "encoder/norm/*",
    "encoder/vision_norm/*",
    "encoder/language_norm/*",
    "encoder/block_*/vision/*",
    "encoder/block_*/language/*",
    "encoder/block_*/vision_language/*",
)


def stream_problems(
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


def paired_warm_start(model: ModelConfig, fresh: tuple[str, ...]) -> WarmStart:
    """Returns rules for a start of any task with the same backbone.

    Positions of images are resized to another image size; those of texts may be fewer.

    Args:
      model: of this task.
      fresh: globs over the parameters that keep their initial values.
    """
    if model.positions is Positions.ABSOLUTE:
        adapt = (("vision_embed/positions", resize_positions), ("text_embed/positions", first_rows))
    else:
        texts = model.text_positions
        adapt = (("encoder/relative_positions", ResizeRelative(texts, texts)),)
    return WarmStart(fresh=fresh, adapt=adapt, unneeded=UNNEEDED)


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
    """Opens and checks the prepared sets of a stream.

    Raises:
      UsageError: one is missing or of another kind, holds back what another trains on, or has no
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
      sets: open.
    """

    def __init__(
        self,
        name: str,
        stream: PairedStreamConfig,
        sets: Sequence[PreparedSet],
        transform: Transform,
        seed: int,
    ):
        """Takes open sets, and how their records become examples.

        Args:
          name: of the stream.
          stream: its settings.
          sets: of its sources.
          transform: of a training record.
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


def over_rows(
    fn: Any, params: Tree, rows: Mapping[str, np.ndarray], batch_size: int, place: Place
) -> np.ndarray:
    """Returns the outputs of a compiled function for any number of rows, on every host.

    The last batch is filled up with its first row, so that the function is compiled once.

    Args:
      fn: from parameters and a batch to an array with one entry per row, replicated.
      params: on the devices.
      rows: arrays by name, of the same number of rows; all of them on every host.
      batch_size: rows at a time, over all hosts.
      place: devices, and which rows are this host's.
    """
    count, size = len(next(iter(rows.values()))), padded_batch(batch_size, place.mesh)
    own, found = np.asarray(place.shard.rows(size)), []
    with on_mesh(place.mesh):
        for start in range(0, count, size):
            numbers = np.arange(start, start + size)
            numbers = np.where(numbers < count, numbers, start)[own]
            batch = {name: values[numbers] for name, values in rows.items()}
            found.append(jax.device_get(fn(params, put_batch(batch, place.mesh))))
    return np.concatenate(found)[:count]
