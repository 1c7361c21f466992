"""Classification of images or of texts."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vlbeit_jax.convert.heads.base import Head, Output
from vlbeit_jax.convert.rules import Rule
from vlbeit_jax.convert.tables import linear, norm
from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.records import Records
from vlbeit_jax.models.classifier import Classifier
from vlbeit_jax.tasks.open_classification import OpenClassification
from vlbeit_jax.types import Modality

INPUT = {Modality.VISION: "image", Modality.LANGUAGE: "text"}


def _rules(network: Classifier) -> list[Rule]:
    return [*norm("head/norm", "head.norm"), *linear("head/out", "head.out")]


def _describe(opened: OpenClassification) -> dict[str, Any]:
    task, stream = opened.task, opened.task.stream
    names = ("view", "crop_share") if task.modality is Modality.VISION else ("text_length",)
    return {
        "modality": str(task.modality),
        "pool": task.pool,
        "norm_eps": task.model.norm_eps,
        "classes": list(task.class_names),
        "inputs": {name: getattr(stream, name) for name in names},
    }


def _outputs(network: Classifier) -> dict[str, Output]:
    return {"logits": Output("__call__", (INPUT[network.modality],))}


def _examples(
    opened: OpenClassification, records: Records, results: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Returns ``image`` or ``text``, and ``label``."""
    transform, draws = opened.make_example(augment=False), Draws("unused")
    rows = [transform(records[index], draws) for index in range(len(records))]
    names = (INPUT[opened.task.modality], "label")
    return {name: np.stack([row[name] for row in rows]) for name in names}


def _task(network: Classifier) -> str:
    return f"{INPUT[network.modality]}-classification"


HEAD = Head(
    "classification",
    _rules,
    _describe,
    _outputs,
    _examples,
    _task,
    "Choosing one of the classes that config.json lists.",
)
