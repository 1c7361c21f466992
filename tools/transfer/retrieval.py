"""Retrieval among the sample's held-out pairs, which no run has trained on."""

import pathlib
from typing import Any

import numpy as np

from tools.transfer.choosing import Chosen, choose
from tools.transfer.fit import PARTS, PRETRAINED, RANDOM, STARTS, Fit, Scores, tried, whole_mesh
from tools.transfer.results import compared
from vlbeit_jax.data.examples.labelled import as_text
from vlbeit_jax.data.identity import VALIDATION
from vlbeit_jax.data.records import Records
from vlbeit_jax.data.source import PreparedSet, open_set
from vlbeit_jax.metrics.retrieval import CUTS, chance
from vlbeit_jax.runtime.finetuned import FineTunedRun
from vlbeit_jax.shapes import Float
from vlbeit_jax.tasks.ranking import Gallery, dual_scores, embed
from vlbeit_jax.training.mesh import put_replicated
from vlbeit_jax.types import Kind

SET = "sample:pairs"
DIRECTIONS = ("image_to_text", "text_to_image")
CHOSEN_BY = 10  # The rate is chosen by the mean of both directions' recall at 10.
KEPT = 6  # Number of best pictures per caption that are stored and shown.
METRICS = tuple(f"{direction}/recall_{cut}" for direction in DIRECTIONS for cut in CUTS)


class RetrievalTask:
    """See ``fit.StudyTask``. The parts are seeds, because the pairs have only one held-out part.

    The rate for one third of the pictures is chosen by the recall of the other two thirds. All
    queries are searched among the same candidates.
    """

    name, source = "retrieval", SET
    rates = {"pretrained": (2e-3, 1e-3, 5e-4), "random": (1e-3, 5e-4, 2.5e-4)}
    settled = {"pretrained": 1e-3, "random": 5e-4}

    def prepare(self, folder: pathlib.Path) -> None:
        """Makes nothing: the set is in the package."""

    def data(self, folder: pathlib.Path, part: int) -> dict[str, Any]:
        """Returns nothing: the recipe names the set."""
        return {}

    def answers(self, run: FineTunedRun, folder: pathlib.Path, part: int) -> dict[str, Any]:
        """Returns ranks in both directions, and the numbers of the best pictures for each caption.

        ``of_texts`` has the rank of each picture's best own caption, ``of_images`` the rank of each
        caption's picture.
        """
        mesh = whole_mesh()
        opened: Any = run.opened
        gallery = Gallery.of(_pairs().records(VALIDATION))
        params = put_replicated(run.params, mesh)
        image, text = embed(opened.task, opened.text, params, gallery, run.place(mesh))
        scores = dual_scores(image, text)
        ranks = gallery.rank(scores)
        return {
            "of_texts": ranks.of_texts.tolist(),
            "of_images": ranks.of_images.tolist(),
            "best_images": np.argsort(-scores.T, axis=1)[:, :KEPT].tolist(),
        }

    def scores(self, found: dict[Fit, Any], start: str, folder: pathlib.Path) -> Scores:
        """Returns the mean of both directions' recall at 10 for each picture, from one start."""
        records = _pairs().records(VALIDATION)
        ids = _ids(records)
        right = _of_both(self._chosen(found, start, Gallery.of(records), ids).right)
        return Scores(right, ids, f"recall_{CHOSEN_BY}", each_group_once=False, seeds=PARTS)

    def results(self, found: dict[Fit, Any], folder: pathlib.Path) -> dict[str, Any]:
        """Returns recalls in both directions, and the mean of the two recalls at 10."""
        pairs = _pairs()
        records = pairs.records(VALIDATION)
        gallery = Gallery.of(records)
        ids = _ids(records)
        chosen = {start: self._chosen(found, start, gallery, ids) for start in STARTS}
        floors = chance(gallery.owner)
        names = [f"recall_{CHOSEN_BY}", *METRICS]
        floors[names[0]] = _of_both(np.array([floors[name] for name in METRICS])).item()
        rows = [
            np.column_stack([_of_both(each.right), each.right])
            for each in (chosen[PRETRAINED], chosen[RANDOM])
        ]
        return {
            "results": {
                self.name: {
                    name: compared(
                        rows[0][:, number],
                        rows[1][:, number],
                        {"chance": floors[name]},
                        ids,
                        PARTS,
                        each_group_once=False,
                    )
                    for number, name in enumerate(names)
                }
            },
            "protocol": {
                "data": {"set": SET, "fingerprint": pairs.fingerprint, "split": VALIDATION},
                "images": len(ids),
                "captions": len(gallery.texts),
                "rates": {
                    start: each.told(tried(found, start, self.rates[start]))
                    for start, each in chosen.items()
                },
            },
        }

    def _chosen(
        self, found: dict[Fit, Any], start: str, gallery: Gallery, ids: np.ndarray
    ) -> Chosen:
        hits = np.stack(
            [
                np.mean([_hits(found[Fit(start, rate, part)], gallery) for part in range(PARTS)], 0)
                for rate in tried(found, start, self.rates[start])
            ]
        )
        return choose(_of_both(hits), np.ones(len(ids)), hits, ids)


def _hits(ranks: dict[str, list[int]], gallery: Gallery) -> Float[np.ndarray, "A M"]:
    """Returns a row for each picture, with a column for each of ``METRICS``.

    The first columns say whether the picture finds one of its captions, the others which share of
    its captions finds it.
    """
    texts = np.bincount(gallery.owner)
    columns = [np.array(ranks["of_texts"]) <= cut for cut in CUTS]
    columns += [
        np.bincount(gallery.owner, np.array(ranks["of_images"]) <= cut) / texts for cut in CUTS
    ]
    return np.column_stack(columns).astype(float)


def _of_both(hits: Float[np.ndarray, "*A M"]) -> Float[np.ndarray, "*A"]:
    """Returns the mean of both directions' recall at 10."""
    columns = [METRICS.index(f"{direction}/recall_{CHOSEN_BY}") for direction in DIRECTIONS]
    return hits[..., columns].mean(axis=-1)


def _ids(records: Records) -> np.ndarray:
    return np.array([as_text(records[number]["id"]) for number in range(len(records))])


def _pairs() -> PreparedSet:
    return open_set(SET, Kind.PAIRS)


TASK = RetrievalTask()
