"""Statements about two images: true or false."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vlbeit_jax.convert.heads.base import Head, Output
from vlbeit_jax.convert.rules import Rule, rule
from vlbeit_jax.convert.tables import linear, norm
from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.records import Records
from vlbeit_jax.models.heads.vqa import EPS
from vlbeit_jax.models.reasoner import Reasoner
from vlbeit_jax.tasks.open_visual_reasoning import TRUTHS, OpenVisualReasoning, truths_of

ARRAYS = ("image", "second_image", "text", "truth")


def _rules(network: Reasoner) -> list[Rule]:
    return [
        rule("vision_embed/second_type", "second_modality"),
        *norm("head/first_norm", "head.first_norm"),
        *linear("head/hidden", "head.hidden"),
        *norm("head/norm", "head.norm"),
        *linear("head/truth", "head.truth"),
    ]


def _describe(opened: OpenVisualReasoning) -> dict[str, Any]:
    return {
        "norm_eps": EPS,
        "truths": list(TRUTHS),
        "inputs": {"view": "squash", "text_length": opened.task.statement.text_length},
    }


def _outputs(network: Reasoner) -> dict[str, Output]:
    return {"logits": Output("__call__", ("image", "second_image", "text"))}


def _examples(
    opened: OpenVisualReasoning, records: Records, results: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Returns both images, ``text``, ``truth``, and ``statement``: the number of its statement."""
    make, draws = opened.make_example(labelled=True, augment=False), Draws("unused")
    rows = [make(records[index], draws) for index in range(len(records))]
    arrays = {name: np.stack([row[name] for row in rows]) for name in ARRAYS}
    _, statement = truths_of(records, len(records))
    return arrays | {"statement": statement.astype(np.int32)}


HEAD = Head(
    "visual_reasoning",
    _rules,
    _describe,
    _outputs,
    _examples,
    lambda network: "visual-question-answering",  # The nearest of the Hub's names.
    "Judging whether a statement is true of two images together.",
)
