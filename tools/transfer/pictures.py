"""Makes a page that shows right and wrong answers of the fine-tuned runs.

    python -m tools.transfer.pictures RESULTS FOLDER OUT

RESULTS is transfer.json. FOLDER holds the studies of all tasks. OUT gets one HTML file that needs
no other file. It shows the table of results, the pictures found for captions, and the answers for
pictures and questions. All records are held out. The answers are those of the run from the
pretrained start, in the first fold or with the first seed, with the chosen rate.
"""

import base64
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tools import command
from tools.emoji.folds import FOLDS, fold_of
from tools.transfer import retrieval
from tools.transfer.finetune import RESULTS, study_of
from tools.transfer.fit import ANSWERS, PRETRAINED, Fit
from tools.transfer.segmentation import MASKS
from vlbeit_jax.data.examples.labelled import as_text
from vlbeit_jax.data.examples.segmented import mask_of
from vlbeit_jax.data.identity import TEST, VALIDATION
from vlbeit_jax.data.image import decode
from vlbeit_jax.data.masks import overlay, stored_mask
from vlbeit_jax.data.source import open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.report.markup import (
    Child,
    Html,
    between,
    document,
    element,
    figure,
    join,
    note,
    picture,
    table,
    words,
)
from vlbeit_jax.report.panels import picture as as_png
from vlbeit_jax.report.style import STYLE
from vlbeit_jax.report.verdicts import Level, Verdict, gain
from vlbeit_jax.tasks.ranking import Gallery

SHOWN_CAPTIONS, SHOWN_ANSWERS = 12, 10
PART, SIDE = 0, 96
TITLES = {
    "emoji_frozen": "Class of an emoji, from frozen features",
    "emoji_frozen_10": "Class of an emoji, from frozen features and ten labels per class",
    "text_category": "Class of the name of an emoji, from frozen features",
    "emoji_category": "Class of an emoji, fine-tuned",
    "retrieval": "Pictures for captions and captions for pictures, fine-tuned",
    "vqa_cell": "Questions about four emoji, fine-tuned",
    "segmentation": "Classes of the pixels of three emoji, fine-tuned",
}
Record = Mapping[str, Any]


def page(results: Mapping[str, Any], folder: pathlib.Path) -> Html:
    """Returns the page.

    Args:
      results: results of all tasks, in the form of ``transfer.json``.
      folder: folder that has a folder for each task.
    """
    answered = (
        [element("h2", TITLES[name]), *_answered(name, folder / name)]
        for name in ("emoji_category", "vqa_cell")
    )
    return document(
        "Pretrained against random starts",
        STYLE,
        element("h1", "Pretrained against random starts"),
        words(
            "Each task is learnt by the same recipe from the pretrained model and from random "
            "parameters. The gain is the difference between the two. A floor is what an answer "
            "reaches that needs no network or no picture."
        ),
        _table(results),
        note(
            "The pictures below are of held-out records. The answers are those of one run from "
            "the pretrained start, with the rate chosen on validation."
        ),
        element("h2", "Pictures found for a caption, the best first"),
        note("The picture that belongs to the caption has a ✓ and comes once more at the end."),
        *_found(folder / "retrieval"),
        *answered,
        *_segmented(folder / "segmentation"),
    )


def _table(results: Mapping[str, Any]) -> Html:
    head = ("Task", "Pretrained", "Random", "Gain", "95% interval", "Floors", "Verdict")
    rows = [
        [
            [
                element("strong", TITLES.get(task, _plain(task))),
                element("span", _plain(metric), class_="note"),
            ],
            f"{found['pretrained']:.3f}",
            f"{found['random']:.3f}",
            f"{found['gain']['value']:+.3f}",
            between(f"{found['gain']['low']:+.3f}", f"{found['gain']['high']:+.3f}"),
            element("span", _floors(found["floors"]), class_="floors"),
            verdict(found).cell(),
        ]
        for task, metrics in results.items()
        for metric, found in metrics.items()
    ]
    return table("Shares of right answers on held-out records", head, rows)


def _floors(floors: Mapping[str, float]) -> Html:
    """Returns a line for each floor; its figure does not stand alone."""
    return join(
        (f"{_plain(name)}\N{NO-BREAK SPACE}{value:.3f}" for name, value in floors.items()), "<br>"
    )


def verdict(found: Mapping[str, Any]) -> Verdict:
    """Returns whether a comparison shows that pretraining helps.

    Args:
      found: one comparison of ``transfer.json``.
    """
    told = gain(
        found["gain"],
        good="The pretrained start is better than the random one.",
        unclear="the pretrained start is better than the random one",
        bad="The pretrained start is worse than the random one.",
        what="this study",
    )
    higher = [name for name, floor in found["floors"].items() if floor >= found["pretrained"]]
    if not higher:
        return told
    # A gain over a random start is no success where a simpler answer does as well.
    floors = " and ".join(map(_plain, higher))
    reason = f"{told.reason} The pretrained start is not above this floor: {floors}."
    level = Level.UNCLEAR if told.level is Level.GOOD else told.level
    return Verdict(level, f"{told.short}, below a floor", reason)


def _plain(name: str) -> str:
    return name.replace("_", " ").replace("/", ": ")


def _answers(folder: pathlib.Path, fold: int = PART) -> Any:
    """Returns what a run of the pretrained start answered, with the rate chosen for a fold."""
    rates = json.loads((folder / RESULTS).read_text())["protocol"]["rates"][PRETRAINED]
    place = folder / "runs" / Fit(PRETRAINED, rates["chosen"][fold], PART).name
    return json.loads((place / ANSWERS).read_text())["answers"]


def _found(folder: pathlib.Path) -> list[Html]:
    """Returns captions with the pictures that were found for them."""
    by_fold, pairs = [_answers(folder, fold) for fold in range(FOLDS)], open_set(retrieval.SET)
    gallery = Gallery.of(pairs.records(VALIDATION))
    parts = []
    for text in _spread(len(gallery.texts), SHOWN_CAPTIONS):
        owner = int(gallery.owner[text])
        answers = by_fold[fold_of(as_text(gallery.images[owner]["id"]))]
        rank = answers["of_images"][text]
        shown = [
            _figure(gallery.images[image], f"{place} ✓" if image == owner else f"{place}")
            for place, image in enumerate(answers["best_images"][text], start=1)
        ]
        own = _figure(gallery.images[owner], f"its own: place {rank} of {len(gallery.images)}")
        caption = words(gallery.texts[text]["text"])
        strip = element("div", *shown, own, class_="strip")
        parts.append(element("div", caption, strip, class_="example"))
    return parts


def _answered(name: str, folder: pathlib.Path) -> list[Html]:
    """Returns test records that were answered rightly, and others answered wrongly."""
    answers = _answers(folder)[TEST]
    (source,) = next(iter(study_of(name).data(folder, PART).values()))["sources"]
    records = open_set(source).records(TEST)
    parts = []
    for title, wanted in (("✓ right", True), ("✗ wrong", False)):
        numbers = [
            number
            for number in range(len(records))
            if (answers[as_text(records[number]["id"])][0] > 0) == wanted
        ]
        parts.append(element("h3", f"{title}: {len(numbers)} of {len(records)}"))
        shown = []
        for place in _spread(len(numbers), SHOWN_ANSWERS):
            record = records[numbers[place]]
            said = answers[as_text(record["id"])][1]
            told: list[Child] = [as_text(record["text"]), " "] if "text" in record else []
            told += [element("strong", said)]
            told += [] if wanted else [f", right: {_truth(record)}"]
            shown.append(_figure(record, told))
        parts.append(element("div", *shown, class_="strip"))
    return parts


def _segmented(folder: pathlib.Path) -> list[Html]:
    """Returns pictures under both masks; nothing of a study without this task."""
    if not (folder / RESULTS).is_file():
        return []
    said = {
        name: stored_mask(base64.b64decode(mask)) for name, mask in _answers(folder)[MASKS].items()
    }
    (source,) = next(iter(study_of("segmentation").data(folder, PART).values()))["sources"]
    records = open_set(source).records(TEST)
    parts = [element("h2", TITLES["segmentation"]), note("Each colour is a class of emoji.")]
    for number in range(len(records)):
        record = records[number]
        if (found := said.get(as_text(record["id"]))) is None:
            continue
        pixels, truth = decode(record["image"]), mask_of(record)
        stages = (
            (pixels, "picture"),
            (overlay(pixels, truth), "right"),
            (overlay(pixels, found), f"model: {(found == truth).mean():.0%} of the pixels"),
        )
        alt = f"Scene {as_text(record['id'])}"
        shown = [
            figure(picture(as_png(each), f"{alt}, {told}", width=SIDE), told)
            for each, told in stages
        ]
        parts.append(element("div", *shown, class_="strip"))
    return parts


def _truth(record: Record) -> str:
    return as_text(record["label"] if "label" in record else record["answers"][0])


def _figure(record: Record, caption: Child) -> Html:
    alt = f"Picture of record {as_text(record['id'])}"
    return figure(picture(as_png(decode(record["image"])), alt, width=SIDE), caption)


def _spread(count: int, shown: int) -> Sequence[int]:
    """Returns evenly spaced numbers, so that nobody picks the examples by hand."""
    return np.linspace(0, count - 1, min(count, shown)).astype(int).tolist()


def main(arguments: list[str]) -> None:
    """Writes the page and prints its path."""
    if len(arguments) != 3:
        raise UsageError("usage: python -m tools.transfer.pictures RESULTS FOLDER OUT")
    results, folder, out = map(pathlib.Path, arguments)
    out.write_text(page(json.loads(results.read_text()), folder))
    print(out)


if __name__ == "__main__":
    command.run(main, __doc__)
