"""Answers of a fine-tuned model beside the truth."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vlbeit_jax.data.examples.images import pixels_of
from vlbeit_jax.data.examples.labelled import as_text
from vlbeit_jax.data.examples.segmented import mask_of
from vlbeit_jax.data.examples.statements import IMAGES
from vlbeit_jax.data.image import centre_view, resize
from vlbeit_jax.data.masks import overlay
from vlbeit_jax.data.records import Records
from vlbeit_jax.metrics.segmentation import IGNORED
from vlbeit_jax.metrics.vqa import normalise
from vlbeit_jax.report.markup import Html, element, figure, picture
from vlbeit_jax.report.panels import picture as as_png
from vlbeit_jax.report.verdicts import Level, Verdict

SIDE = 128  # Pixels of a picture on the page.
WHICH = ("First picture", "Second picture")


def answer_cards(records: Records, predictions: Sequence[Mapping[str, Any]]) -> Html:
    """Returns a card per record: what was asked, what the model answers, what is right.

    Args:
      records: annotated.
      predictions: of ``FineTuned.predict``, one per record.
    """
    cards = [_card(records[index], prediction) for index, prediction in enumerate(predictions)]
    return element("ul", cards, class_="cards")


def _card(record: Mapping[str, Any], prediction: Mapping[str, Any]) -> Html:
    if "mask" in prediction:
        return element("li", *_segmented(record, prediction), class_="card")
    told = _chosen(record, prediction) if "top" in prediction else _written(record, prediction)
    return element(
        "li",
        element("div", *_pictures(record), class_="strip") if "image" in record else None,
        element("p", record_text(record)) if "text" in record else None,
        *told,
        class_="card",
    )


def _chosen(record: Mapping[str, Any], prediction: Mapping[str, Any]) -> list[Html | None]:
    """Returns what the model chose, which is right or wrong."""
    truths, answer = truths_of(record), prediction["top"][0][0]
    right = normalise(answer) in {normalise(each) for each in truths}
    verdict = Verdict(Level.GOOD, "right", "") if right else Verdict(Level.BAD, "wrong", "")
    truth = None if right else element("p", "Right: ", element("strong", " / ".join(truths)))
    listed = [
        element("li", element("strong" if not place else "span", name), f" {score:.2f}")
        for place, (name, score) in enumerate(prediction["top"])
    ]
    return [element("p", verdict.badge()), element("ol", listed), truth]


def _written(record: Mapping[str, Any], prediction: Mapping[str, Any]) -> list[Html | None]:
    """Returns what the model wrote beside what people wrote: several texts may be right."""
    given = [element("li", text) for text in truths_of(record)]
    return [
        element("p", "The model: ", element("strong", prediction["caption"])),
        element("p", "People:"),
        element("ul", given),
    ]


def _segmented(record: Mapping[str, Any], prediction: Mapping[str, Any]) -> list[Html]:
    """Returns the picture under the colours of both masks, and how much of it is right.

    Pixels that do not count keep their own colour in the mask of people.
    """
    pixels, truth = pixels_of(record), mask_of(record)
    counted = truth != IGNORED
    people = np.where(counted[..., None], overlay(pixels, truth), pixels)
    stages = [
        (pixels, "picture"),
        (people, "people"),
        (overlay(pixels, prediction["mask"]), "the model"),
    ]
    name = as_text(record["id"])
    shown = [
        figure(picture(as_png(_fitted(each)), f"Record {name}, {told}", width=SIDE), told)
        for each, told in stages
    ]
    share = (truth == prediction["mask"])[counted].mean() if counted.any() else 0.0
    listed = [element("li", f"{label} {part:.0%}") for label, part in prediction["classes"]]
    told = element("p", element("strong", f"{share:.1%}"), " of the pixels are right. The model:")
    return [element("div", *shown, class_="strip"), told, element("ul", listed)]


def _fitted(pixels: np.ndarray) -> np.ndarray:
    """Returns a whole picture whose longer side is ``SIDE``."""
    height, width = (
        max(1, round(length * SIDE / max(pixels.shape[:2]))) for length in pixels.shape[:2]
    )
    return np.ascontiguousarray(resize(pixels, height, width))


def truths_of(record: Mapping[str, Any]) -> list[str]:
    """Returns what counts as right for a record, without repetitions."""
    if "truth" in record:
        return ["true" if record["truth"] else "false"]
    for name in ("label", "answers", "captions"):
        if name in record:
            truths = [record[name]] if name == "label" else record[name]
            return list(dict.fromkeys(as_text(each) for each in truths))
    raise ValueError(f"a record without an annotation: {sorted(record)}")


def record_text(record: Mapping[str, Any]) -> str:
    """Returns the text, the question or the statement of a record, cut to a few lines."""
    text = as_text(record["text"])
    return text if len(text) <= 400 else f"{text[:400]} …"


def _pictures(record: Mapping[str, Any]) -> list[Html]:
    """Returns the picture of a record, or both, the first one on the left."""
    names = [name for name in IMAGES if name in record]
    titles = WHICH if len(names) > 1 else ("Picture",)
    return [
        _shown({**record, "image": record[name]}, title)
        for name, title in zip(names, titles, strict=True)
    ]


def _shown(record: Mapping[str, Any], title: str) -> Html:
    view = np.ascontiguousarray(centre_view(pixels_of(record), SIDE))
    alt = f"{title} of record {as_text(record['id'])}"
    return figure(picture(as_png(view), alt, width=SIDE, height=SIDE), "")
