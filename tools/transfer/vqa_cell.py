"""Questions about one cell of a picture of 2 x 2 emoji: "What is at the top left?"."""

from typing import Any, NamedTuple

import cv2
import numpy as np

from tools.emoji.sets import QUESTIONS
from tools.transfer.by_folds import FoldTask, Record, Rows, records_of
from tools.transfer.fit import whole_mesh
from tools.transfer.floors import small
from vlbeit_jax.data.examples.labelled import as_text
from vlbeit_jax.data.identity import TEST, TRAIN
from vlbeit_jax.data.image import decode
from vlbeit_jax.data.records import Records
from vlbeit_jax.data.source import PreparedSet
from vlbeit_jax.metrics.probes import nearest_neighbours
from vlbeit_jax.metrics.vqa import Rule, vqa_score
from vlbeit_jax.runtime.finetuned import FineTunedRun
from vlbeit_jax.shapes import Float, Int, UInt8
from vlbeit_jax.types import Kind

ANSWER = "answer"  # Its name in a prediction.
WHITE = np.full((128, 128, 3), 255, np.uint8)  # As the emoji's own background.


def _right(record: Record, said: str) -> float:
    answers = [as_text(answer) for answer in record["answers"]]
    return vqa_score(said, answers, Rule.EXACT)


def _blank(run: FineTunedRun, records: Records) -> dict[str, Any]:
    """Returns the run's answers to the same questions about a white picture, and their scores."""
    image = cv2.imencode(".png", WHITE)[1].tobytes()
    asked = [{"id": text, "image": image, "text": text} for text in QUESTIONS]
    said = {
        record["id"]: prediction[ANSWER]
        for record, prediction in zip(asked, run.predict(asked, 1, whole_mesh()), strict=True)
    }
    found = {}
    for number in range(len(records)):
        record = records[number]
        answer = said[as_text(record["text"])]
        found[as_text(record["id"])] = [_right(record, answer), answer]
    return {"blank_image": found}


class _Asked(NamedTuple):
    """The records that ask one question."""

    ids: list[str]
    answers: Int[np.ndarray, " A"]
    pictures: Float[np.ndarray, "A K"]
    cells: Float[np.ndarray, "A K"]


def _floors(sets: list[PreparedSet], rows: Rows) -> dict[str, Float[np.ndarray, " A"]]:
    """Returns by name whether answers from the question alone, or from pixels, are right.

    Pixels answer as the nearest training picture with the same question does. It is the nearest as
    a whole, or the nearest in the cell. The latter is told where to look.
    """
    names = ("question_alone", "pixel_nearest_neighbour", "pixel_nearest_neighbour_in_the_cell")
    right: list[dict[str, float]] = [{} for _ in names]
    for each in sets:
        for question in QUESTIONS:
            known, tested = (_asked(each, split, question) for split in (TRAIN, TEST))
            said = (
                np.bincount(known.answers).argmax(),
                _nearest(known.pictures, known.answers, tested.pictures),
                _nearest(known.cells, known.answers, tested.cells),
            )
            for by_id, answers in zip(right, said, strict=True):
                by_id |= zip(tested.ids, answers == tested.answers, strict=True)
    return {name: rows.numbered(by_id) for name, by_id in zip(names, right, strict=True)}


def _nearest(
    known: Float[np.ndarray, "A K"],
    answers: Int[np.ndarray, " A"],
    asked: Float[np.ndarray, "B K"],
) -> Int[np.ndarray, " B"]:
    return nearest_neighbours(known, answers, asked, [1])[1]


def _asked(found: PreparedSet, split: str, question: str) -> _Asked:
    records = [each for each in records_of(found, split) if as_text(each["text"]) == question]
    pixels = [decode(each["image"]) for each in records]
    classes, cell = list(found.meta["classes"]), QUESTIONS.index(question)
    return _Asked(
        [as_text(each["id"]) for each in records],
        np.array([classes.index(as_text(each["answers"][0])) for each in records]),
        np.stack([small(each) for each in pixels]),
        np.stack([small(_cell(each, cell)) for each in pixels]),
    )


def _cell(
    pixels: UInt8[np.ndarray, "height width 3"], cell: int
) -> UInt8[np.ndarray, "half_height half_width 3"]:
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    top, left = height * (cell // 2), width * (cell % 2)
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])


TASK = FoldTask(
    name="vqa_cell",
    kind=Kind.QUESTIONS,
    stream="question",
    rates={"pretrained": (2e-3, 1e-3, 5e-4), "random": (3e-3, 1e-3, 5e-4)},
    settled={"pretrained": 1e-3, "random": 5e-4},
    said=ANSWER,
    right=_right,
    floors=_floors,
    more=_blank,
)
