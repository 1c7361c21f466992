"""Makes a prepared set of one fold of the emoji, for a task.

    python -m tools.emoji.sets labelled_images 0 OUT

The kind is labelled_images (picture and class), labelled_texts (name and class), pairs (picture and
names), questions or masks. A question is about a picture of 2 x 2 emoji: "What is at the top
left?"; the answer is the class. Masks are of scenes of three emoji (tools.emoji.scenes). The
pictures and classes are real, the questions come from a template. The fold is 0, 1 or 2: it is the
test part.

    python -m tools.emoji.sets pairs 0 OUT SET...

leaves out what each SET, which the new one will be used with, has on the other side of the split.
"""

import collections
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from tools import command
from tools.emoji.folds import FOLDS, split_of
from tools.emoji.scenes import BACKGROUND, scenes
from vlbeit_jax.data.answers import AnswerCounter
from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.identity import SPLITS, text_key
from vlbeit_jax.data.image import decode
from vlbeit_jax.data.source import PreparedSet, open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.apart import OtherSets
from vlbeit_jax.prepare.writer import write_set
from vlbeit_jax.types import Kind

Record = Mapping[str, Any]
Placed = tuple[str, dict[str, Any]]
CELLS = ("top left", "top right", "bottom left", "bottom right")
QUESTIONS = tuple(f"What is at the {place}?" for place in CELLS)
IMAGE_FIELDS = ("id", "source", "sha256", "image", "group")


def by_split(found: PreparedSet, fold: int) -> dict[str, list[dict[str, Any]]]:
    """Returns the records of each split when a fold is tested, with strings as ``str``."""
    parts: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for own in found.meta["counts"]:
        records = found.records(own)
        for number in range(len(records)):
            record = {name: _decoded(name, value) for name, value in records[number].items()}
            parts[split_of(record["group"], fold)].append(record)
    return parts


def _decoded(name: str, value: Any) -> Any:
    if name in ("image", "alpha"):
        return value
    return value.decode() if isinstance(value, bytes) else [each.decode() for each in value]


def _labelled_image(record: Record) -> dict[str, Any]:
    return {name: record[name] for name in (*IMAGE_FIELDS, "label")}


def _labelled_text(record: Record) -> dict[str, Any]:
    fields = {name: record[name] for name in ("id", "source", "group", "label")}
    return fields | {"text": record["names"][0]}


def _pairs(
    parts: Mapping[str, list[dict[str, Any]]], left_out: collections.Counter
) -> Iterator[Placed]:
    """Yields pictures with their names; each name is in the first split that has it."""
    known: set[int] = set()
    for split in SPLITS:
        own: set[int] = set()
        for record in parts[split]:
            names = [name for name in record["names"] if text_key(name) not in known]
            own.update(map(text_key, names))
            if names:
                fields = {name: record[name] for name in IMAGE_FIELDS if name != "group"}
                yield split, fields | {"captions": names}
            else:
                left_out["names_in_another_split"] += 1
        known |= own


def _each(parts: Mapping[str, list[dict[str, Any]]], make: Callable[[Record], Any]) -> Any:
    return ((split, make(record)) for split, records in parts.items() for record in records)


def questions(parts: Mapping[str, list[dict[str, Any]]], fold: int) -> Iterator[Placed]:
    """Yields a question about every cell for each emoji, among three others of its split.

    A question's group is that of the emoji that it asks for. So an interval draws emoji, and not
    composed pictures.
    """
    for split, records in parts.items():
        pixels = [decode(record["image"]) for record in records]
        for number, record in enumerate(records):
            for cell, question in enumerate(QUESTIONS):
                draws = Draws("emoji questions", fold, split, number, cell)
                shown = [draws.below(len(records)) for _ in CELLS]
                shown[cell] = number
                image = _grid([pixels[each] for each in shown])
                yield (
                    split,
                    {
                        "id": f"{record['id']}/{cell}",
                        "source": record["source"],
                        "image": image,
                        "group": record["group"],
                        "text": question,
                        "answers": [record["label"]],
                    },
                )


def _grid(pictures: list[np.ndarray]) -> bytes:
    """Returns four pictures as one PNG."""
    rows = [np.concatenate(pictures[i : i + 2], axis=1) for i in (0, 2)]
    return cv2.imencode(".png", np.concatenate(rows)[..., ::-1])[1].tobytes()


def make(
    kind: Kind, fold: int, out: pathlib.Path, apart_from: Sequence[str] = ()
) -> dict[str, Any]:
    """Writes the set of a fold and returns its description.

    Args:
      kind: of the set.
      fold: whose test part is tested.
      out: the folder to make.
      apart_from: sets whose pictures and captions are not on the other side of the split.

    Raises:
      UsageError: ``out`` exists, or there is no such kind or fold.
    """
    if fold not in range(FOLDS):
        raise UsageError(f"fold {fold}: give one of {', '.join(map(str, range(FOLDS)))}")
    found = open_set("sample:emoji")
    parts, left_out = by_split(found, fold), collections.Counter()
    makers: dict[Kind, Callable[[], Any]] = {
        Kind.LABELLED_IMAGES: lambda: _each(parts, _labelled_image),
        Kind.LABELLED_TEXTS: lambda: _each(parts, _labelled_text),
        Kind.PAIRS: lambda: _pairs(parts, left_out),
        Kind.QUESTIONS: lambda: questions(parts, fold),
        Kind.MASKS: lambda: scenes(parts, found.meta["classes"], fold),
    }
    if kind not in makers:
        raise UsageError(f"kind {kind}: give one of {', '.join(makers)}")
    meta = {
        "source": "sample:emoji",
        "licence": found.meta["licence"],
        "made_from": found.fingerprint,
        "fold": fold,
        "left_out": left_out,
        "classes": [BACKGROUND] * (kind is Kind.MASKS) + list(found.meta["classes"]),
    }
    records = makers[kind]()
    if apart_from:
        records = OtherSets([open_set(place) for place in apart_from]).apart(records, left_out)
    if kind is Kind.QUESTIONS:
        records = _counted(records, meta)
    return write_set(out, kind, records, shards=1, meta=meta)


def _counted(records: Iterator[Placed], meta: dict[str, Any]) -> Iterator[Placed]:
    """Yields questions, then describes their answers as training needs it."""
    counter = AnswerCounter()
    for split, record in records:
        counter.add(split, record["answers"])
        yield split, record
    meta.update(counter.description())


def main(arguments: list[str]) -> None:
    """Makes the set and prints its description."""
    if len(arguments) < 3 or arguments[0] not in list(Kind) or not arguments[1].isdigit():
        raise UsageError("usage: python -m tools.emoji.sets KIND FOLD OUT SET... (see --help)")
    kind, fold, out, *others = arguments
    found = make(Kind(kind), int(fold), pathlib.Path(out), others)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    command.run(main, __doc__)
