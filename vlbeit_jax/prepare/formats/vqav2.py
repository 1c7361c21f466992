"""VQA v2 as its authors publish it: questions and annotations in JSON, pictures of COCO.

The folder holds, for train2014 and val2014 each,

  v2_OpenEnded_mscoco_SUBSET_questions.json
  v2_mscoco_SUBSET_annotations.json
  SUBSET/COCO_SUBSET_000000000009.jpg

and, to predict for the evaluation server, the questions of test2015 or test-dev2015 with the
pictures of test2015. The id of a record is the question's.
"""

import pathlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from vlbeit_jax.data.identity import TRAIN, VALIDATION
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.formats.base import Found, Options, Plan, Unit
from vlbeit_jax.prepare.formats.official import (
    Pictures,
    in_one_unit,
    missing,
    read_list,
    required,
    splits_of,
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
    """Plans one unit, and counts the questions with answers."""
    return in_one_unit(paths, "vqav2", options, count)


def read(unit: Unit, options: Options) -> Iterator[Item]:
    """Yields the questions of val2014 as validation and those of train2014 as training.

    Raises:
      UsageError: a file is missing or is another one.
    """
    for split in (split for split in splits_of(options) if split in SUBSETS):
        yield from read_subset(pathlib.Path(unit.path), split)


def count(folder: pathlib.Path) -> int:
    """Returns the number of questions with answers."""
    return sum(len(_questions(folder, subset)) for subset in SUBSETS.values())


def pictures_of(folder: pathlib.Path, part: str) -> set[Any]:
    """Returns the numbers of the pictures that the questions of a part are about."""
    return {each["image_id"] for each in _questions(folder, SUBSETS[part])}


def read_questions(folder: pathlib.Path, part: str) -> Iterator[Item]:
    """Yields questions without answers, in the order of their file, to predict for.

    Args:
      folder: of the benchmark.
      part: a key of ``ASKED``.

    Raises:
      UsageError: a file is missing or is another one, or a question's picture is missing.
    """
    subset = ASKED[part]
    questions, pictures = _questions(folder, subset), _pictures(folder, subset)
    # A prediction takes hours, and without a single picture there is no file to submit.
    names = {path.name for path in (folder / pictures).iterdir()}
    for each in questions:
        name = _picture_name(pictures, each["image_id"])
        if name not in names:
            raise UsageError(
                f"{folder / _file(subset)}: question {each['question_id']} is about {pictures}/"
                f"{name}, which is not there; unpack all pictures of {pictures}"
            )
    yield from _items(folder, subset, "", questions, None)


def count_questions(folder: pathlib.Path, part: str) -> int:
    """Returns how many questions ``read_questions`` yields."""
    return len(_questions(folder, ASKED[part]))


def read_subset(
    folder: pathlib.Path,
    part: str,
    split: str = "",
    of_pictures: Collection[Any] | None = None,
) -> Iterator[Item]:
    """Yields questions with answers; those about one picture follow each other.

    Args:
      folder: of the benchmark.
      part: a key of ``SUBSETS``.
      split: of the items; empty: the part.
      of_pictures: their numbers; None: all.

    Raises:
      UsageError: a file is missing or is another one.
    """
    subset = SUBSETS[part]
    questions = _questions(folder, subset)
    name = f"v2_mscoco_{subset}_annotations.json"
    path = required(folder, name, f"the answers of people to the questions of {subset}")
    annotations = {each.get("question_id"): each for each in read_list(path, "annotations")}
    asked = {each["question_id"] for each in questions}
    if unknown := [number for number in annotations if number not in asked]:
        raise UsageError(
            f"{path}: it answers question {unknown[0]}, which is not in {_file(subset)}; the two "
            "files belong to different releases"
        )
    if of_pictures is not None:
        questions = [each for each in questions if each["image_id"] in of_pictures]
    # A picture with several questions is then read and checked once.
    questions = sorted(questions, key=lambda each: (each["image_id"], each["question_id"]))
    yield from _items(folder, subset, split or part, questions, annotations)


def _items(
    folder: pathlib.Path,
    subset: str,
    split: str,
    questions: Sequence[Mapping[str, Any]],
    annotations: Mapping[Any, Mapping[str, Any]] | None,
) -> Iterator[Item]:
    below = _pictures(folder, subset)
    pictures = Pictures(folder)
    for each in questions:
        number = each["question_id"]
        name = f"{below}/{_picture_name(below, each['image_id'])}"
        image, fault = pictures.read(name)
        answers: tuple[str, ...] = ()
        if annotations is not None:
            answers, wrong = _answers(annotations.get(number), subset)
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
    file = f"v2_mscoco_{subset}_annotations.json"
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


def _questions(folder: pathlib.Path, subset: str) -> list[Mapping[str, Any]]:
    path = required(folder, _file(subset), f"the questions about the pictures of {subset}")
    questions = read_list(path, "questions")
    for place, each in enumerate(questions):
        if fault := missing(each, QUESTION):
            raise UsageError(f"{path}: of questions[{place}]: {fault}")
    if len({each["question_id"] for each in questions}) < len(questions):
        raise UsageError(f"{path}: a question_id occurs twice; get the file again")
    return questions


def _file(subset: str) -> str:
    return f"v2_OpenEnded_mscoco_{subset}_questions.json"


def _pictures(folder: pathlib.Path, subset: str) -> str:
    """Returns the name of the folder of a subset's pictures."""
    name = subset.replace("-dev", "")  # The questions of test-dev are about a part of test2015.
    required(folder, f"{name}/", f"the pictures of COCO's {name}")
    return name


def _picture_name(below: str, number: int) -> str:
    return f"COCO_{below}_{number:012d}.jpg"
