"""Captions of images, by the head of word pieces that pretraining has."""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from vlbeit_jax.convert.heads.base import Head, Output
from vlbeit_jax.convert.rules import Rule
from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.examples.paired import WholeImage
from vlbeit_jax.data.records import Records
from vlbeit_jax.metrics import captions
from vlbeit_jax.models.captioner import Captioner
from vlbeit_jax.tasks.open_captioning import OpenCaptioning, references_of
from vlbeit_jax.types import Special


def _rules(network: Captioner) -> list[Rule]:
    """Returns nothing: the table of the pretrained model has the head of word pieces."""
    return []


def _describe(opened: OpenCaptioning) -> dict[str, Any]:
    task, named = opened.task, (Special.PAD, Special.CLS, Special.SEP, Special.MASK)
    return {
        "beams": task.beams,
        "length_penalty": task.length_penalty,
        "pieces": {piece.name.lower(): int(piece) for piece in named},
        "inputs": {"view": "squash", "text_length": task.pair.text_length},
    }


def _outputs(network: Captioner) -> dict[str, Output]:
    return {"logits": Output("__call__", ("image", "text"))}


def _examples(
    opened: OpenCaptioning, records: Records, results: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Returns each record's ``image``, and its captions as ``references``: JSON in UTF-8."""
    whole, draws = WholeImage(opened.task.model.image_size), Draws("unused")
    rows = [records[index] for index in range(len(records))]
    given = json.dumps(references_of(records, len(records)), ensure_ascii=False)
    return {
        "image": np.stack([whole(row, draws)["image"] for row in rows]),
        "references": np.frombuffer(given.encode(), np.uint8),
    }


HEAD = Head(
    "captioning",
    _rules,
    _describe,
    _outputs,
    _examples,
    lambda network: "image-to-text",
    "Writing a caption of an image.",
    {"caption_scores.py": pathlib.Path(captions.__file__)},
)
