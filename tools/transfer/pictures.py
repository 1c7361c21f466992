"""Makes a page that shows right and wrong answers of the fine-tuned runs.

    python -m tools.transfer.pictures RESULTS FOLDER OUT

RESULTS is transfer.json. FOLDER holds the studies of all tasks. OUT gets one HTML file that needs
no other file. It shows the table of results, the pictures found for captions, and the answers for
pictures and questions. All records are held back. The answers are those of the run from the
pretrained start, in the first fold or with the first seed, with the chosen rate.
"""

import base64
import html
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from tools import command
from tools.emoji.folds import FOLDS, fold_of
from tools.transfer import retrieval
from tools.transfer.finetune import RESULTS, study_of
from tools.transfer.fit import ANSWERS, PRETRAINED, Fit
from vlbeit_jax.data.examples.labelled import as_text
from vlbeit_jax.data.identity import TEST, VALIDATION
from vlbeit_jax.data.image import decode
from vlbeit_jax.data.source import open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.report.page import STYLE
from vlbeit_jax.tasks.ranking import Gallery

SHOWN_CAPTIONS, SHOWN_ANSWERS = 12, 10
PART = 0
Record = Mapping[str, Any]


def page(results: Mapping[str, Any], folder: pathlib.Path) -> str:
    """Returns the page.

    Args:
      results: results of all tasks, in the form of ``transfer.json``.
      folder: folder that has a folder for each task.
    """
    parts = [
        "<h1>Pretrained against random starts</h1>",
        _table(results),
        "<p class=note>The pictures below are of held-back records. The answers are those of one "
        "run from the pretrained start, with the rate chosen on validation.</p>",
        "<h2>Pictures found for a caption, the best first</h2>",
        *_found(folder / "retrieval"),
    ]
    titles = {"emoji_category": "Classes of emoji", "vqa_cell": "Questions about four emoji"}
    for name, title in titles.items():
        parts.append(f"<h2>{title}</h2>")
        parts += _answered(name, folder / name)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Transfer</title>"
        f"<style>{STYLE}.right {{ outline: 3px solid #15803d }}</style>{''.join(parts)}</html>\n"
    )


def _table(results: Mapping[str, Any]) -> str:
    names = ("task", "metric", "pretrained", "random", "gain", "95% interval", "floors")
    rows = ["".join(f"<th>{name}</th>" for name in names)]
    for task, metrics in results.items():
        for metric, found in metrics.items():
            gain = found["gain"]
            floors = ", ".join(f"{name} {value:.3f}" for name, value in found["floors"].items())
            cells = (
                task,
                metric,
                f"{found['pretrained']:.3f}",
                f"{found['random']:.3f}",
                f"{gain['value']:+.3f}",
                f"{gain['low']:+.3f} to {gain['high']:+.3f}",
                floors,
            )
            rows.append("".join(f"<td>{html.escape(cell)}</td>" for cell in cells))
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def _answers(folder: pathlib.Path, fold: int = PART) -> Any:
    """Returns what a run of the pretrained start answered, with the rate chosen for a fold."""
    rates = json.loads((folder / RESULTS).read_text())["protocol"]["rates"][PRETRAINED]
    place = folder / "runs" / Fit(PRETRAINED, rates["chosen"][fold], PART).name
    return json.loads((place / ANSWERS).read_text())["answers"]


def _found(folder: pathlib.Path) -> list[str]:
    """Returns captions with the pictures that were found for them."""
    by_fold, pairs = [_answers(folder, fold) for fold in range(FOLDS)], open_set(retrieval.SET)
    gallery = Gallery.of(pairs.records(VALIDATION))
    parts = []
    for text in _spread(len(gallery.texts), SHOWN_CAPTIONS):
        owner = int(gallery.owner[text])
        answers = by_fold[fold_of(as_text(gallery.images[owner]["id"]))]
        rank = answers["of_images"][text]
        shown = [
            _figure(gallery.images[image], "", "right" if image == owner else "")
            for image in answers["best_images"][text]
        ]
        caption = html.escape(gallery.texts[text]["text"])
        own = _figure(gallery.images[owner], f"its picture: place {rank} of {len(gallery.images)}")
        parts.append(f"<div class=caption><p>{caption}</p>{''.join(shown)}{own}</div>")
    return parts


def _answered(name: str, folder: pathlib.Path) -> list[str]:
    """Returns HTML of test records that were answered rightly, and of others answered wrongly."""
    answers = _answers(folder)[TEST]
    (source,) = next(iter(study_of(name).data(folder, PART).values()))["sources"]
    records = open_set(source).records(TEST)
    parts = []
    for title, wanted in (("right", True), ("wrong", False)):
        numbers = [
            number
            for number in range(len(records))
            if (answers[as_text(records[number]["id"])][0] > 0) == wanted
        ]
        parts.append(f"<h3>{title}: {len(numbers)} of {len(records)}</h3>")
        for place in _spread(len(numbers), SHOWN_ANSWERS):
            record = records[numbers[place]]
            said = html.escape(answers[as_text(record["id"])][1])
            told = f"<b class=hit>{said}</b>" if wanted else f"{said}<br>right: {_truth(record)}"
            question = html.escape(as_text(record["text"])) + "<br>" if "text" in record else ""
            parts.append(_figure(record, question + told))
    return parts


def _truth(record: Record) -> str:
    truth = record["label"] if "label" in record else record["answers"][0]
    return html.escape(as_text(truth))


def _figure(record: Record, caption: str, kind: str = "") -> str:
    encoded = cv2.imencode(".png", np.ascontiguousarray(decode(record["image"])[..., ::-1]))[1]
    source = "data:image/png;base64," + base64.b64encode(encoded.tobytes()).decode()
    return (
        f"<figure><img class='{kind}' width=96 alt='' src='{source}'>"
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _spread(count: int, shown: int) -> list[int]:
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
