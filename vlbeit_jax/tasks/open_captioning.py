"""Captioning with its tokenizer: data, captions of images, and their scores."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vlbeit_jax.config.common import RunConfig
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.data.examples.captions import MaskedCaption
from vlbeit_jax.data.examples.labelled import as_text
from vlbeit_jax.data.examples.paired import WholeImage
from vlbeit_jax.data.records import ConcatRecords, Records
from vlbeit_jax.data.source import VALIDATION, PreparedSet
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.metrics.captions import TOKENIZER, Scores, scores, words
from vlbeit_jax.metrics.interval import mean_interval
from vlbeit_jax.models.captioner import write_captions
from vlbeit_jax.objectives.captioning import CAPTION
from vlbeit_jax.ops.beam_search import Found, Search
from vlbeit_jax.shapes import Array, Tree
from vlbeit_jax.tasks.assets import open_text_tokenizer
from vlbeit_jax.tasks.base import Place
from vlbeit_jax.tasks.figures import Headline
from vlbeit_jax.tasks.one_stream import OneStreamData, open_sets
from vlbeit_jax.tasks.open_fine_tuned import OpenFineTuned, groups_of
from vlbeit_jax.tasks.predicting import outputs_of
from vlbeit_jax.training.state import TrainState
from vlbeit_jax.types import Kind

PAIR = "pair"  # The one stream.


class Written(NamedTuple):
    """A caption, and the natural logarithm of its probability."""

    caption: str
    log_probability: float


@dataclasses.dataclass(frozen=True)
class _Write:
    """Writes a caption of each image; hashable, because it is compiled once."""

    config: ModelConfig
    search: Search

    def __call__(self, params: Tree, batch: dict[str, Array]) -> Found:
        return write_captions(self.config, self.search, params, batch["image"])


class OpenCaptioning(OpenFineTuned):
    """A task that writes captions; see ``OpenFineTuned``."""

    kind = Kind.PAIRS
    method = "caption"
    needs = frozenset({"image"})
    headlines = (
        Headline(f"{CAPTION}/cider", "CIDEr-D", baseline=f"{CAPTION}/cider_wrong_picture"),
        Headline(f"{CAPTION}/bleu_4", "BLEU-4", share=True),
    )
    text: TextTokenizer

    def __init__(self, task: Any, text_tokenizer: str | Path):
        """Opens the tokenizer of a ``tasks.captioning.Captioning``.

        Raises:
          UsageError: it is missing or does not fit.
        """
        super().__init__(task, open_text_tokenizer(text_tokenizer, task.model))
        self.chance = {CAPTION: 1 / task.model.vocabulary}

    def training_data(self, run: RunConfig) -> OneStreamData:
        """Opens the sets of pairs.

        Raises:
          UsageError: one is missing or of another kind.
        """
        task = self.task
        sets = open_sets(task.pair, [self.kind], run)
        transform = MaskedCaption(task.pair, task.model.image_size, self.text)
        return OneStreamData(PAIR, task.pair, sets, transform, run.seed)

    def evaluate(
        self, params: Tree, sets: Sequence[PreparedSet], split: str, place: Place
    ) -> dict[str, Any]:
        """Returns the scores of captions of the images of some sets, and the protocol.

        Args:
          params: on the devices.
          sets: of pairs.
          split: of each set.
          place: devices.
        """
        records = ConcatRecords([each.records(split) for each in sets])
        references = references_of(records, len(records))
        scored, metrics = self._scored(self._written(params, records, place), references)
        groups, task = groups_of(records), self.task
        for name, values in (("cider", scored.cider), ("rouge_l", scored.rouge_l)):
            metrics[f"{name}_interval"] = mean_interval(np.array(values), groups)[1:]
        captions = [caption for own in references for caption in own]
        protocol = {
            "metric": "BLEU-1 to BLEU-4, ROUGE-L and CIDEr-D as COCO's evaluation defines them; "
            "BLEU is not smoothed",
            "words": TOKENIZER,
            "document_frequencies": f"captions of the {len(records)} images that are scored",
            "interval": "95%, bootstrap over groups of images; the document frequencies stay the "
            "same",
            "images": len(records),
            "captions": len(captions),
            "search": f"{task.beams} beams, length penalty {task.length_penalty:g}",
            "image_size": task.model.image_size,
            "view": "squash",
            **self._text_protocol(captions),
        }
        return {"metrics": metrics, "groups": len(np.unique(groups)), "protocol": protocol}

    def predict(
        self, params: Tree, records: Records, top: int, place: Place
    ) -> Iterator[dict[str, Any]]:
        """Yields a caption of each record's image, and its log-probability.

        Args:
          params: on the devices.
          records: with ``id`` and ``image``.
          top: has no use: one caption is written.
          place: devices.
        """
        for written in self._written(params, records, place):
            yield written._asdict()

    def _written(
        self, params: Tree, records: Records, place: Place, batches: int = 0
    ) -> list[Written]:
        task = self.task
        write, view = _Write(task.model, task.search), WholeImage(task.model.image_size)
        size = task.pair.batch_size
        written = outputs_of(write, params, records, view, size, place, batches=batches).outputs
        return [
            Written(self.text.decode(row), float(share))
            for row, share in zip(written.text.tolist(), written.log_probability, strict=True)
        ]

    def _evaluate_state(
        self, held_out: PreparedSet, place: Place, state: TrainState, frozen: Tree
    ) -> dict[str, float]:
        records = held_out.records(VALIDATION)
        written = self._written(state.params, records, place, place.run.evaluate_batches)
        _, figures = self._scored(written, references_of(records, len(written)))
        return {f"{CAPTION}/{name}": value for name, value in figures.items()}

    def _scored(
        self, written: Sequence[Written], references: Sequence[Sequence[str]]
    ) -> tuple[Scores, dict[str, Any]]:
        """Returns the scores of captions, and their figures over all images.

        ``cider_wrong_picture`` is the CIDEr-D of the same captions if each is given to the next
        image. A network that does not look at its image scores as much.
        """
        captions = [words(each.caption) for each in written]
        given = [[words(caption) for caption in own] for own in references]
        result = scores(captions, given)
        wrong = scores(captions[1:] + captions[:1], given)
        return result, {
            "cider": float(np.mean(result.cider)),
            "cider_wrong_picture": float(np.mean(wrong.cider)),
            **{f"bleu_{n}": value for n, value in enumerate(result.bleu, 1)},
            "rouge_l": float(np.mean(result.rouge_l)),
            "count": len(captions),
        }


def references_of(records: Records, count: int) -> list[list[str]]:
    """Returns the captions that people gave to the first images."""
    return [[as_text(each) for each in records[index]["captions"]] for index in range(count)]
