"""Probes while pretraining: ridge and nearest neighbours on labelled data, retrieval on pairs.

They are fitted to the training part of a labelled set and tested on its validation part. Nothing is
drawn but the few-shot rows, by a fixed seed, so that equal parameters give equal figures. Retrieval
compares images alone with texts alone and fits nothing; pretraining does not align the two, so that
it may well stay at chance.
"""

import dataclasses
import time
from typing import Any

import numpy as np

from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.config.probes import ProbeConfig
from vlbeit_jax.data.examples.labelled import as_text
from vlbeit_jax.data.source import TRAIN, VALIDATION, PreparedSet, open_set
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.errors import UsageError
from vlbeit_jax.metrics.probes import Ridge, few_of_each, nearest_neighbours, unit_rows
from vlbeit_jax.metrics.retrieval import chance, rank, recalls
from vlbeit_jax.shapes import Float, Int, Tree
from vlbeit_jax.tasks.base import Place
from vlbeit_jax.tasks.features import image_features, text_features
from vlbeit_jax.tasks.figures import Headline
from vlbeit_jax.training.state import TrainState
from vlbeit_jax.types import Kind

SEED = 0  # Of the few-shot rows.
BEST = 10  # Candidates among which retrieval looks for the right one.
PROBE = "probe"  # Before the names of figures.
HEADLINES = (
    Headline(f"{PROBE}/image/ridge", "image ridge", True, f"{PROBE}/image/majority"),
    Headline(f"{PROBE}/text/ridge", "text ridge", True, f"{PROBE}/text/majority"),
    *(
        Headline(
            f"{PROBE}/pair/{name}_recall_{BEST}",
            f"{found} R@{BEST}",
            True,
            f"{PROBE}/pair/chance_{name}_recall_{BEST}",
        )
        for found, name in (("text", "image_to_text"), ("image", "text_to_image"))
    ),
)


@dataclasses.dataclass(frozen=True)
class LabelledRows:
    """Some rows of a split.

    Attributes:
      records: with an image or a text.
      labels: number of each row's class.
    """

    records: list[Any]
    labels: Int[np.ndarray, " A"]


class Probe:
    """One labelled set and what is computed from it."""

    def __init__(self, place: str, kind: Kind, rows: int):
        """Reads the rows; encoded images stay in memory.

        Raises:
          UsageError: the set is missing, of another kind, or lacks one of both parts.
        """
        prepared = open_set(place, kind)
        for split in (TRAIN, VALIDATION):
            if not prepared.count(split):
                raise UsageError(
                    f"{prepared.folder} holds no {split} records "
                    f"({dict(prepared.meta['counts'])}), which probes need; prepare it again with "
                    "another --validation_share"
                )
        self.kind, self.classes = kind, list(prepared.meta["classes"])
        self.parts = {}
        for split in (TRAIN, VALIDATION):
            chosen = _spread(prepared, split, rows)
            labels = [self.classes.index(as_text(record["label"])) for record in chosen]
            self.parts[split] = LabelledRows(chosen, np.array(labels))

    def figures(
        self,
        known: Float[np.ndarray, "A D"],
        new: Float[np.ndarray, "B D"],
        settings: ProbeConfig,
    ) -> dict[str, float]:
        """Returns accuracies on the validation rows, with the majority's beside them.

        Args:
          known: features of the training rows.
          new: features of the validation rows.
          settings: of the probes.
        """
        labels, wanted = self.parts[TRAIN].labels, self.parts[VALIDATION].labels
        few = few_of_each(labels, len(self.classes), settings.shots, SEED)

        def ridge(rows: Any) -> np.ndarray:
            fitted = Ridge.fit(known[rows], labels[rows], len(self.classes))
            return fitted.scores(new, settings.strength).argmax(axis=1)

        count = min(settings.neighbours, len(labels))
        near = nearest_neighbours(unit_rows(known), labels, unit_rows(new), [count])[count]
        answers = {
            "ridge": ridge(slice(None)),
            f"ridge_{settings.shots}": ridge(few),
            "neighbours": near,
            "majority": np.full_like(wanted, np.bincount(labels).argmax()),
        }
        return {name: float(np.mean(answer == wanted)) for name, answer in answers.items()}


class PairProbe:
    """Pairs whose captions are to be found from the image, and the other way round."""

    def __init__(self, place: str, rows: int):
        """Reads the held-out pairs.

        Raises:
          UsageError: the set is missing, of another kind, or has no held-out pairs.
        """
        prepared = open_set(place, Kind.PAIRS)
        self.records = _spread(prepared, VALIDATION, rows)
        captions = [[as_text(text) for text in record["captions"]] for record in self.records]
        self.texts = [text for each in captions for text in each]
        self._owner = np.repeat(np.arange(len(captions)), [len(each) for each in captions])

    def figures(
        self, images: Float[np.ndarray, "A D"], texts: Float[np.ndarray, "B D"]
    ) -> dict[str, float]:
        """Returns recall among the best 10 in both directions, and that of a random order.

        Scores are cosines of features from which the mean of their own modality was subtracted:
        without that, all images point in one direction and all texts in another.

        Args:
          images: features of the images.
          texts: features of all captions.
        """
        one, other = (unit_rows(each - each.mean(axis=0)) for each in (images, texts))
        recalled = recalls(rank(one @ other.T, self._owner), [BEST])
        by_chance = chance(self._owner, [BEST])
        named = {name.replace("/", "_"): value for name, value in recalled.items()}
        return named | {f"chance_{name.replace('/', '_')}": x for name, x in by_chance.items()}


def _spread(prepared: PreparedSet, split: str, rows: int) -> list[Any]:
    """Returns at most so many records of a split, evenly spaced."""
    records, count = prepared.records(split), prepared.count(split)
    taken = min(rows, count)
    return [records[number * count // taken] for number in range(taken)]


class Probes:
    """The probes of a run."""

    def __init__(self, settings: ProbeConfig, model: ModelConfig, text: TextTokenizer | None):
        """Opens the sets that the settings name.

        Raises:
          UsageError: one is missing or does not fit.
        """
        self._settings, self._model, self._text = settings, model, text
        self._probes = {}
        if settings.images:
            self._probes["image"] = Probe(settings.images, Kind.LABELLED_IMAGES, settings.rows)
        if text is None and (settings.texts or settings.pairs):
            raise UsageError(
                "config.task.probes.texts and pairs need a text tokenizer, but no stream of the "
                "schedule has texts"
            )
        if settings.texts:
            self._probes["text"] = Probe(settings.texts, Kind.LABELLED_TEXTS, settings.rows)
        self._pairs = PairProbe(settings.pairs, settings.rows) if settings.pairs else None

    def run(self, place: Place, state: TrainState, frozen: Tree) -> dict[str, float]:
        """Returns ``image/ridge`` and so on, and ``seconds``, which this took on this host."""
        began, figures = time.monotonic(), {}
        for name, probe in self._probes.items():
            known, new = (
                self._features(probe.kind, state.params, probe.parts[split].records, place)
                for split in (TRAIN, VALIDATION)
            )
            of_probe = probe.figures(known, new, self._settings)
            figures |= {f"{name}/{what}": value for what, value in of_probe.items()}
        if self._pairs:
            images = image_features(self._model, state.params, self._pairs.records, place)
            texts = self._texts(state.params, self._pairs.texts, place)
            of_probe = self._pairs.figures(images, texts)
            figures |= {f"pair/{what}": value for what, value in of_probe.items()}
        return figures | {"seconds": time.monotonic() - began}

    def _features(
        self, kind: Kind, params: Tree, records: list[Any], place: Place
    ) -> Float[np.ndarray, "A D"]:
        if kind is Kind.LABELLED_IMAGES:
            return image_features(self._model, params, records, place)
        return self._texts(params, [as_text(record["text"]) for record in records], place)

    def _texts(self, params: Tree, texts: list[str], place: Place) -> Float[np.ndarray, "A D"]:
        assert self._text is not None, "checked when the sets were opened"
        return text_features(self._model, params, texts, self._text, place)
