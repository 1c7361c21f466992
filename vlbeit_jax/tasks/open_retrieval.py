"""Retrieval with its tokenizer: data, evaluation in both directions, rankings."""

import functools
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlbeit_jax.config.common import RunConfig
from vlbeit_jax.data.examples.paired import CaptionExample
from vlbeit_jax.data.records import ConcatRecords, Records
from vlbeit_jax.data.source import VALIDATION, PreparedSet
from vlbeit_jax.metrics.retrieval import chance, recalls
from vlbeit_jax.models.params import Tree
from vlbeit_jax.tasks.assets import TEXT_TOKENIZER, open_text_tokenizer
from vlbeit_jax.tasks.base import Evaluator, Place
from vlbeit_jax.tasks.one_stream import OneStreamData, open_sets
from vlbeit_jax.tasks.ranking import Gallery, dual_scores, embed, match_own, rerank_both
from vlbeit_jax.training.state import TrainState, declarations
from vlbeit_jax.types import Kind

PAIR = "pair"  # The one stream.
DUAL, RERANKED = "retrieval", "reranked"  # Before the names of figures.


class OpenRetrieval:
    """See ``tasks.base.OpenTask`` and ``tasks.base.FineTuned``.

    Attributes:
      task: its description, a ``tasks.retrieval.Retrieval``.
      text: the tokenizer of captions.
      frozen: nothing; all parameters are trained.
      chance: nothing: it depends on the rows of a batch.
      kind: of the sets that it takes.
      needs_image: whether a prediction needs an image.
      needs_text: whether it needs a text.
      needs_captions: whether it needs captions, which it ranks.
    """

    kind = Kind.PAIRS
    needs_image, needs_text, needs_captions = True, False, True

    def __init__(self, task: Any, text_tokenizer: str | Path):
        """Opens the tokenizer.

        Raises:
          UsageError: it is missing or does not fit.
        """
        self.task = task
        self.text = open_text_tokenizer(text_tokenizer, task.model)
        self.frozen: Tree = {}
        self.chance: Mapping[str, float] = {}

    @property
    def fingerprints(self) -> dict[str, Any]:
        """That of the tokenizer."""
        return {TEXT_TOKENIZER: self.text.fingerprint}

    def abstract_params(self) -> Tree:
        """Returns the shapes of the parameters."""
        return declarations(self.task.init).shapes

    def save_assets(self, folder: Path) -> None:
        """Copies the tokenizer into a run, which then no longer needs the original."""
        shutil.copytree(self.text.folder, folder / TEXT_TOKENIZER, dirs_exist_ok=True)

    def training_data(self, run: RunConfig) -> OneStreamData:
        """Opens the sets of pairs.

        Raises:
          UsageError: one is missing or of another kind.
        """
        task = self.task
        sets = open_sets(task.pair, [self.kind], run)
        transform = CaptionExample(task.pair, task.model.image_size, self.text, augment=True)
        return OneStreamData(PAIR, task.pair, sets, transform, run.seed)

    def evaluators(self, data: OneStreamData, place: Place) -> Sequence[Evaluator]:
        """Returns recalls in both directions among held-back pairs of the first source."""
        run = functools.partial(self._evaluate_state, data, place)
        return [Evaluator("", place.run.evaluate_every, run)]

    def prepare_state(self, state: TrainState, data: OneStreamData, place: Place) -> TrainState:
        """Returns the state unchanged: nothing has to be prepared."""
        return state

    def evaluate(
        self, params: Tree, sets: Sequence[PreparedSet], split: str, place: Place
    ) -> dict[str, Any]:
        """Returns recalls among all images and captions of some sets, and the protocol.

        Args:
          params: on the devices.
          sets: of pairs.
          split: of each set.
          place: devices.
        """
        records = ConcatRecords([each.records(split) for each in sets])
        gallery = Gallery.of(records)
        figures = self._figures(params, gallery, place)
        longest, captions = self.task.pair.text_length - 2, gallery.texts
        cut = sum(len(self.text.encode(each["text"])) > longest for each in captions)
        protocol = {
            "metric": "share of images any of whose captions is among the best k of all captions, "
            "and share of captions whose image is among the best k of all images",
            "ties": "a wrong candidate that is as good as the right one counts as better",
            "images": len(records),
            "captions": len(captions),
            "image_size": self.task.model.image_size,
            "view": "squash",
            TEXT_TOKENIZER: self.text.fingerprint,
            "text_length": self.task.pair.text_length,
            "share_of_cut_texts": cut / len(captions),
        }
        if self.task.reranks:
            protocol["reranked"] = f"best {self.task.rerank} candidates, by matching alone"
        return {
            "metrics": figures,
            "chance": chance(gallery.owner),
            "groups": len(records),
            "protocol": protocol,
        }

    def predict(
        self, params: Tree, records: Records, top: int, place: Place
    ) -> Iterator[dict[str, Any]]:
        """Yields the caption that fits each record's image best, and the ``top`` best ones.

        With each caption comes its cosine with the image; after re-ranking by matching, the
        probability that it belongs to the image. Names of classes as captions make this a zero-shot
        classification.

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
            best = own[np.argsort(-scores[own], kind="stable")][:top]
            listed = [[gallery.texts[each]["text"], float(scores[each])] for each in best]
            yield {"caption": listed[0][0], "top": listed}

    def _evaluate_state(
        self, data: OneStreamData, place: Place, state: TrainState, frozen: Tree
    ) -> dict[str, float]:
        batches = place.run.evaluate_batches
        most = batches * self.task.pair.batch_size if batches else None
        records = data.sets[0].records(VALIDATION)
        gallery = Gallery.of(records, most)
        return self._figures(state.params, gallery, place)

    def _figures(self, params: Tree, gallery: Gallery, place: Place) -> dict[str, float]:
        """Returns recalls of both encoders, and after re-ranking if there is matching."""
        image, text = embed(self.task, self.text, params, gallery, place)
        scores = dual_scores(image, text)
        ranks = gallery.rank(scores)
        figures = {f"{DUAL}/{name}": value for name, value in recalls(ranks).items()}
        if self.task.reranks:
            again = rerank_both(self.task, self.text, params, gallery, scores, ranks, place)
            figures |= {f"{RERANKED}/{name}": value for name, value in recalls(again).items()}
        return figures
