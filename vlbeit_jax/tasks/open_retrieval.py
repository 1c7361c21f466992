"""Retrieval with its tokenizer: data, evaluation in both directions, rankings."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlbeit_jax.config.common import RunConfig
from vlbeit_jax.data.class_names import ClassTexts
from vlbeit_jax.data.examples.paired import CaptionExample
from vlbeit_jax.data.records import ConcatRecords, Records
from vlbeit_jax.data.source import VALIDATION, PreparedSet
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.metrics.retrieval import Ranks, chance, recall_intervals, recalls
from vlbeit_jax.objectives.contrastive import CONTRAST
from vlbeit_jax.objectives.matching import MATCHING, PASSES
from vlbeit_jax.shapes import Float, Tree
from vlbeit_jax.tasks.assets import open_text_tokenizer
from vlbeit_jax.tasks.base import Place
from vlbeit_jax.tasks.figures import Headline
from vlbeit_jax.tasks.one_stream import OneStreamData, open_sets
from vlbeit_jax.tasks.open_fine_tuned import OpenFineTuned, best_of, groups_of
from vlbeit_jax.tasks.ranking import (
    Gallery,
    dual_scores,
    embed,
    embed_images,
    embed_texts,
    match_own,
    rerank_both,
)
from vlbeit_jax.tasks.zero_shot import mean_directions
from vlbeit_jax.training.state import TrainState
from vlbeit_jax.types import Kind

PAIR = "pair"  # The one stream.
DUAL, RERANKED = "retrieval", "reranked"  # Before the names of figures.
FIRST = 1  # Log lines show how often the first candidate is right.


class OpenRetrieval(OpenFineTuned):
    """A task that ranks images and captions; see ``OpenFineTuned``."""

    headlines = tuple(
        Headline(
            f"{kind}/{name}/recall_{FIRST}",
            f"{label}{found} R@{FIRST}",
            True,
            f"chance/{name}/recall_{FIRST}",
        )
        for kind, label in ((DUAL, ""), (RERANKED, f"{RERANKED} "))
        for found, name in (("text", "image_to_text"), ("image", "text_to_image"))
    )
    kind = Kind.PAIRS
    method = "search"
    needs = frozenset({"image", "captions"})
    # Only which rows have the same number counts.
    explained = frozenset({"picture"})
    text: TextTokenizer

    def __init__(self, task: Any, text_tokenizer: str | Path):
        """Opens the tokenizer of a ``tasks.retrieval.Retrieval``.

        Raises:
          UsageError: it is missing or does not fit.
        """
        super().__init__(task, open_text_tokenizer(text_tokenizer, task.model))
        # A batch may show a picture twice; a guess is then right more often. Matching has one right
        # pair among its passes, so that "no" is the best constant answer.
        self.chance = {CONTRAST: 1 / task.pair.batch_size, MATCHING: 1 - 1 / PASSES}

    def training_data(self, run: RunConfig) -> OneStreamData:
        """Opens the sets of pairs.

        Raises:
          UsageError: one is missing or of another kind.
        """
        task = self.task
        sets = open_sets(task.pair, [self.kind], run)
        transform = CaptionExample(task.pair, task.model.image_size, self.text, augment=True)
        return OneStreamData(PAIR, task.pair, sets, transform, run.seed)

    def evaluate(
        self, params: Tree, sets: Sequence[PreparedSet], split: str, place: Place
    ) -> dict[str, Any]:
        """Returns recalls among all images and captions of some sets, and the protocol.

        Each recall is followed by its interval, over groups of images.

        Args:
          params: on the devices.
          sets: of pairs.
          split: of each set.
          place: devices.
        """
        records = ConcatRecords([each.records(split) for each in sets])
        gallery = Gallery.of(records)
        groups, metrics = groups_of(records), {}
        for kind, ranks in self._ranks(params, gallery, place).items():
            intervals = recall_intervals(ranks, gallery.owner, groups)
            for name, value in recalls(ranks).items():
                metrics[f"{kind}/{name}"] = value
                metrics[f"{kind}/{name}_interval"] = intervals[name]
        captions = [each["text"] for each in gallery.texts]
        protocol = {
            "metric": "share of images any of whose captions is among the best k of all captions, "
            "and share of captions whose image is among the best k of all images",
            "ties": "a wrong candidate that is as good as the right one counts as better",
            "interval": "95%, bootstrap over groups of images, each with all its captions; the "
            "candidates stay the same",
            "images": len(records),
            "captions": len(captions),
            "image_size": self.task.model.image_size,
            "view": "squash",
            **self._text_protocol(captions),
        }
        if self.task.reranks:
            protocol["reranked"] = f"best {self.task.rerank} candidates, by matching alone"
        return {
            "metrics": metrics,
            "chance": chance(gallery.owner),
            "groups": len(np.unique(groups)),
            "protocol": protocol,
        }

    def predict(
        self, params: Tree, records: Records, top: int, place: Place
    ) -> Iterator[dict[str, Any]]:
        """Yields the caption that fits each record's image best, and the ``top`` best ones.

        With each caption comes its cosine with the image; after re-ranking by matching, the
        probability that it belongs to the image.

        Args:
          params: on the devices.
          records: with ``id``, ``image`` and ``captions``.
          top: captions to list.
          place: devices.
        """
        gallery = Gallery.of(records)
        image, text = embed(self.task, self.text, params, gallery, place)
        scores = (image[gallery.owner] * text).sum(axis=1)
        if self.task.reranks:
            scores = match_own(self.task, self.text, params, gallery, place)
        for index in range(len(records)):
            own = np.flatnonzero(gallery.owner == index)
            captions = [gallery.texts[each]["text"] for each in own.tolist()]
            listed = best_of(captions, scores[own], top)
            yield {"caption": listed[0][0], "top": listed}

    def class_vectors(
        self, params: Tree, classes: ClassTexts, place: Place
    ) -> Float[np.ndarray, "C E"]:
        """See ``zero_shot.ComparesClasses``."""
        asked = [{"id": str(number), "text": text} for number, text in enumerate(classes.texts)]
        texts = embed_texts(self.task, self.text, params, asked, place)
        return mean_directions(texts, classes)

    def cosines(
        self, params: Tree, records: Records, vectors: Float[np.ndarray, "C E"], place: Place
    ) -> Float[np.ndarray, "A C"]:
        """See ``zero_shot.ComparesClasses``. Matching has no part in it."""
        return dual_scores(embed_images(self.task, params, records, place), vectors)

    def scale(self, params: Tree) -> float:
        """See ``zero_shot.ComparesClasses``."""
        log_scale = float(params["head"]["logit_scale"])
        most = self.task.max_scale
        return min(math.exp(log_scale), most) if most else math.exp(log_scale)

    def _evaluate_state(
        self, held_out: PreparedSet, place: Place, state: TrainState, frozen: Tree
    ) -> dict[str, float]:
        batches = place.run.evaluate_batches
        most = batches * self.task.pair.batch_size if batches else None
        gallery = Gallery.of(held_out.records(VALIDATION), most)
        figures = {
            f"{kind}/{name}": value
            for kind, ranks in self._ranks(state.params, gallery, place).items()
            for name, value in recalls(ranks).items()
        }
        guessed = chance(gallery.owner, [FIRST])
        return figures | {f"chance/{name}": value for name, value in guessed.items()}

    def _ranks(self, params: Tree, gallery: Gallery, place: Place) -> dict[str, Ranks]:
        """Returns the ranks of both encoders, and those after re-ranking if there is matching."""
        image, text = embed(self.task, self.text, params, gallery, place)
        scores = dual_scores(image, text)
        ranks = {DUAL: gallery.rank(scores)}
        if self.task.reranks:
            ranks[RERANKED] = rerank_both(
                self.task, self.text, params, gallery, scores, ranks[DUAL], place
            )
        return ranks
