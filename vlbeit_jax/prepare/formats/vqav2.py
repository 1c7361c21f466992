"""VQA v2 as its authors publish it: questions and annotations in JSON, pictures of COCO.

The folder holds, for train2014 and val2014 each,

  v2_OpenEnded_mscoco_SUBSET_questions.json
  v2_mscoco_SUBSET_annotations.json
  SUBSET/COCO_SUBSET_000000000009.jpg

and, to predict for the evaluation server, the questions of test2015 or test-dev2015 with the
pictures of test2015. The id of a record is the question's.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from vlbeit_jax.data.identity import TRAIN, VALIDATION
from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import input_path
from vlbeit_jax.prepare.formats.base import Found, Options, Plan, Unit
from vlbeit_jax.prepare.formats.listed import Place, listed, read_at
from vlbeit_jax.prepare.formats.official import (
    Pictures,
    divided,
    missing,
    only_one,
    ranges,
    required,
)
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.types import Kind

KINDS = frozenset({Kind.QUESTIONS})
SUBSETS = {TRAIN: "train2014", VALIDATION: "val2014"}
ASKED = {**SUBSETS, "test": "test2015", "test-dev": "test-dev2015"}  # That a model can answer.
QUESTION = {"question_id": int, "image_id": int, "question": str}
ANNOTATION = {"question_id": int, "answers": list}


def sniff(found: Found) -> bool:
    """Returns whether a folder has a file of questions."""
    return any(name.startswith("v2_OpenEnded_mscoco_") for name in found.names)


def plan(paths: Sequence[pathlib.Path], options: Options) -> Plan:
    """Divides the questions with answers: those of val2014 are validation.

    Raises:
      UsageError: a file is missing or is another one.
    """
    return divided(
        only_one(paths, "vqav2"), options, SUBSETS, lambda whole, split: units_of(whole, split)
    )


def read(unit: Unit, options: Options) -> Iterator[Item]:
    """Yields the questions of a unit; those about one picture follow each other."""
    folder, subset = input_path(unit.path), unit.extra["subset"]
    questions, answered = zip(*unit.extra["places"], strict=True)
    notes = read_at(folder / _notes(subset), (place for place in answered if place))
    annotations = (next(notes) if place else None for place in answered)
    asked = read_at(folder / _file(subset), questions)
    yield from _items(folder, subset, unit.extra["split"], asked, annotations)


def pictures_of(folder: pathlib.Path, part: str) -> set[Any]:
    """Returns the numbers of the pictures that the questions of a part are about."""
    return {each["image_id"] for _, each in _questions(folder, SUBSETS[part])}


def read_questions(folder: pathlib.Path, part: str) -> Iterator[Item]:
    """Yields questions without answers, in the order of their file, to predict for.

    Args:
      folder: of the benchmark.
      part: a key of ``ASKED``.

    Raises:
      UsageError: a file is missing or is another one, or a question's picture is missing.
    """
    subset = ASKED[part]
    questions = [each for _, each in _questions(folder, subset)]
    pictures = _pictures(folder, subset)
    # A prediction takes hours, and without a single picture there is no file to submit.
    names = {path.name for path in (folder / pictures).iterdir()}
    for each in questions:
        name = _picture_name(pictures, each["image_id"])
        if name not in names:
            raise UsageError(
                f"{folder / _file(subset)}: question {each['question_id']} is about {pictures}/"
                f"{name}, which is not there; unpack all pictures of {pictures}"
            )
    yield from _items(folder, subset, "", questions)


def count_questions(folder: pathlib.Path, part: str) -> int:
    """Returns how many questions ``read_questions`` yields."""
    return sum(1 for _ in _questions(folder, ASKED[part]))


def units_of(
    whole: Unit, part: str, split: str = "", of_pictures: Collection[Any] | None = None
) -> list[Unit]:
    """Divides questions with answers.

    Args:
      whole: the benchmark as one unit.
      part: a key of ``SUBSETS``.
      split: of the items; empty: the part.
      of_pictures: their numbers; None: all.

    Raises:
      UsageError: a file is missing or is another one.
    """
    folder, subset = input_path(whole.path), SUBSETS[part]
    _pictures(folder, subset)
    by_id = {each["question_id"]: (each["image_id"], at) for at, each in _questions(folder, subset)}
    path = required(folder, _notes(subset), f"the answers of people to the questions of {subset}")
    answered: dict[int, Place] = {}
    for place, each in listed(path, "annotations"):
        number = each.get("question_id")
        if not isinstance(number, int) or number not in by_id:
            raise UsageError(
                f"{path}: it answers question {number}, which is not in {_file(subset)}; the two "
                "files belong to different releases"
            )
        answered[number] = place
    # A picture with several questions is then read and checked once.
    order = sorted((image, number) for number, (image, _) in by_id.items())
    places = [
        (by_id[number][1], answered.get(number))
        for image, number in order
        if of_pictures is None or image in of_pictures
    ]
    files = [str(folder / _file(subset)), str(path)]
    return [
        dataclasses.replace(unit, extra={**unit.extra, "places": places[unit.start : unit.stop]})
        for unit in ranges(whole, len(places), split=split or part, subset=subset, paths=files)
    ]


def _items(
    folder: pathlib.Path,
    subset: str,
    split: str,
    questions: Iterable[Mapping[str, Any]],
    annotations: Iterable[Mapping[str, Any] | None] | None = None,
) -> Iterator[Item]:
    """Yields the items of questions, with their annotations or without any."""
    below = _pictures(folder, subset)
    pictures = Pictures(folder)
    noted = itertools.repeat(None) if annotations is None else annotations
    for each, annotation in zip(questions, noted, strict=False):
        number = each["question_id"]
        name = f"{below}/{_picture_name(below, each['image_id'])}"
        image, fault = pictures.read(name)
        answers: tuple[str, ...] = ()
        if annotations is not None:
            answers, wrong = _answers(annotation, subset)
            fault = fault or wrong
        yield Item(
            str(number),
            image,
            text=each["question"].strip(),
            source=name,
            answers=answers,
            split=split,
            place=f"{folder / _file(subset)}: question {number}",
            fault=fault,
        )


def _answers(annotation: Mapping[str, Any] | None, subset: str) -> tuple[tuple[str, ...], str]:
    """Returns what people answered, and what is wrong with the annotation."""
    file = _notes(subset)
    if annotation is None:
        return (), f"it has no annotation in {file}"
    if fault := missing(annotation, ANNOTATION):
        return (), f"of its annotation in {file}: {fault}"
    answers = []
    for each in annotation["answers"]:
        text = each.get("answer") if isinstance(each, dict) else None
        if not isinstance(text, str):
            return (), f"of its annotation in {file}: an answer has no text under 'answer'"
        answers.append(text.strip())
    return tuple(answers), "" if answers else f"its annotation in {file} has no answers"


def _questions(folder: pathlib.Path, subset: str) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    path = required(folder, _file(subset), f"the questions about the pictures of {subset}")
    known: set[int] = set()
    for number, (place, each) in enumerate(listed(path, "questions")):
        if fault := missing(each, QUESTION):
            raise UsageError(f"{path}: of questions[{number}]: {fault}")
        if each["question_id"] in known:
            raise UsageError(f"{path}: a question_id occurs twice; get the file again")
        known.add(each["question_id"])
        yield place, each


def _notes(subset: str) -> str:
    return f"v2_mscoco_{subset}_annotations.json"


def _file(subset: str) -> str:
    return f"v2_OpenEnded_mscoco_{subset}_questions.json"


def _pictures(folder: pathlib.Path, subset: str) -> str:
    """Returns the name of the folder of a subset's pictures."""
    name = subset.replace("-dev", "")  # The questions of test-dev are about a part of test2015.
    required(folder, f"{name}/", f"the pictures of COCO's {name}")
    return name


def _picture_name(below: str, number: int) -> str:
    return f"COCO_{below}_{number:012d}.jpg"
