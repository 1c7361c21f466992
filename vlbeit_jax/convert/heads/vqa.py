"""Answers to questions about images.

This file computes the score of every answer in the list whose score is not 0, so that PyTorch needs
none of VQA v2's normalisation.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vlbeit_jax.convert.heads.base import Head, Output, text_rows
from vlbeit_jax.convert.rules import Rule as TableRule
from vlbeit_jax.convert.tables import linear, norm
from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.examples.labelled import as_text
from vlbeit_jax.data.examples.paired import WholeImage
from vlbeit_jax.data.records import Records
from vlbeit_jax.metrics.vqa import Rule, answer_type, majority, normalise, tidy, vqa_score
from vlbeit_jax.models.heads.vqa import EPS
from vlbeit_jax.models.vqa import VQA
from vlbeit_jax.tasks.open_vqa import OpenVQA


def _rules(network: VQA) -> list[TableRule]:
    return [
        *norm("pooler/norm", "pooler.norm"),
        *linear("pooler/dense", "pooler.dense"),
        *linear("head/hidden", "head.hidden"),
        *norm("head/norm", "head.norm"),
        *linear("head/answers", "head.answers"),
    ]


def _describe(opened: OpenVQA) -> dict[str, Any]:
    return {
        "norm_eps": EPS,
        "answers": list(opened.answers.answers),
        "inputs": {"view": "squash", "text_length": opened.task.question.text_length},
    }


def _outputs(network: VQA) -> dict[str, Output]:
    return {"logits": Output("__call__", ("image", "text"))}


def _examples(
    opened: OpenVQA, records: Records, results: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Returns ``image``, ``text``, ``answers`` with their ``scores``, and a mask for each type.

    Every question gets as many slots as the question with the most answers in the list needs. A
    slot that a question does not need holds answer 0 with score 0, which adds nothing.
    """
    rule, numbers = Rule(results["protocol"]["rule"]), opened.answers.numbers
    rows = [records[index] for index in range(len(records))]
    given = [[as_text(answer) for answer in row["answers"]] for row in rows]
    listed = [answer_scores(answers, numbers, rule) for answers in given]
    slots = max(map(len, listed))
    answers, scores = np.zeros((len(rows), slots), np.int32), np.zeros((len(rows), slots))
    for row, own in enumerate(listed):
        answers[row, : len(own)], scores[row, : len(own)] = list(own), list(own.values())
    whole, draws = WholeImage(opened.task.model.image_size), Draws("unused")
    questions = [as_text(row["text"]) for row in rows]
    kinds = np.array([answer_type(majority(each)) for each in given])
    return {
        "image": np.stack([whole(row, draws)["image"] for row in rows]),
        "text": text_rows(opened.text, questions, opened.task.question.text_length),
        "answers": answers,
        "scores": scores.astype(np.float32),
        **{
            f"type/{kind.replace('/', '_')}": (kinds == kind).astype(np.uint8)
            for kind in sorted(set(kinds))
        },
    }


def answer_scores(answers: list[str], numbers: Mapping[str, int], rule: Rule) -> dict[int, float]:
    """Returns the scores that are not 0, by the answer's number in the list.

    An answer of the list can have such a score only if somebody gave it, before or after
    normalisation.
    """
    names = {form(answer) for answer in answers for form in (tidy, normalise)} & numbers.keys()
    scores = {numbers[name]: vqa_score(name, answers, rule) for name in sorted(names)}
    return {number: score for number, score in scores.items() if score}


HEAD = Head(
    "vqa",
    _rules,
    _describe,
    _outputs,
    _examples,
    lambda network: "visual-question-answering",
    "Answering a question about an image with one of the answers that config.json lists.",
)
