"""Question answering with its tokenizer and list of answers: data, evaluation, predictions."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlbeit_jax.config.common import RunConfig
from vlbeit_jax.data.answers import PEOPLE, AnswerList
from vlbeit_jax.data.examples.labelled import as_text
from vlbeit_jax.data.examples.paired import QuestionExample
from vlbeit_jax.data.records import ConcatRecords, Records
from vlbeit_jax.data.source import TRAIN, VALIDATION, PreparedSet
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.metrics.interval import mean_interval
from vlbeit_jax.metrics.vqa import (
    Rule,
    answer_type,
    choose_rule,
    majority,
    normalise,
    summarise,
    vqa_score,
)
from vlbeit_jax.objectives.answering import ANSWER, Answering
from vlbeit_jax.shapes import Float, Tree
from vlbeit_jax.tasks.assets import open_text_tokenizer
from vlbeit_jax.tasks.base import Place
from vlbeit_jax.tasks.one_stream import OneStreamData, open_sets
from vlbeit_jax.tasks.open_fine_tuned import OpenFineTuned, best_of, groups_of
from vlbeit_jax.tasks.predicting import outputs_of
from vlbeit_jax.tasks.reading import Arrays
from vlbeit_jax.training.state import TrainState
from vlbeit_jax.types import Kind

QUESTION = "question"  # The one stream.
METRICS = {
    Rule.OFFICIAL: "VQA v2's score: mean over the people who answered of min(1, others who gave "
    "this answer / 3), after its normalisation",
    Rule.EXACT: "share of questions to which somebody gave this answer, after VQA v2's "
    "normalisation",
}


class OpenVQA(OpenFineTuned):
    """A task with a list of answers; see ``OpenFineTuned``.

    What a guess scores depends on the answers: ``prior`` is logged, and no ``chance``.
    """

    kind = Kind.QUESTIONS
    method = "answer"
    needs = frozenset({"image", "text"})
    explained = frozenset({"answers", "scores"})
    text: TextTokenizer

    def __init__(self, task: Any, text_tokenizer: str | Path):
        """Opens the tokenizer of a ``tasks.vqa.VQATask`` with its answers.

        Raises:
          UsageError: it is missing or does not fit.
        """
        super().__init__(task, open_text_tokenizer(text_tokenizer, task.model))
        self._logits = Answering(task.network).logits

    @property
    def answers(self) -> AnswerList:
        """The list that the network chooses from."""
        assert self.task.opened_answers is not None, "resolved"
        return self.task.opened_answers

    @property
    def fingerprints(self) -> dict[str, Any]:
        """The fingerprints of the tokenizer and of the list of answers."""
        return {**super().fingerprints, "answer list": self.answers.digest}

    def save_assets(self, folder: Path) -> None:
        """Copies tokenizer and answers into a run, which then no longer needs the originals."""
        super().save_assets(folder)
        self.answers.save(folder)

    def training_data(self, run: RunConfig) -> OneStreamData:
        """Opens the sets of questions.

        Raises:
          UsageError: one is missing or of another kind.
        """
        sets = open_sets(self.task.question, [self.kind], run)
        people = {int(count) for each in sets for count in each.meta[PEOPLE].get(TRAIN, {})}
        transform = self._example(self.answers.numbers, self._rule(people), augment=True)
        return OneStreamData(QUESTION, self.task.question, sets, transform, run.seed)

    def evaluate(
        self, params: Tree, sets: Sequence[PreparedSet], split: str, place: Place
    ) -> dict[str, Any]:
        """Returns the score on a split of some sets, also by type of answer, and the protocol.

        Args:
          params: on the devices.
          sets: of questions.
          split: of each set.
          place: devices.
        """
        records = ConcatRecords([each.records(split) for each in sets])
        given = _given(records, len(records))
        rule = self._rule(map(len, given))
        scores = self._scores(self._all_logits(params, records, place).argmax(axis=1), given, rule)
        groups = groups_of(records)
        interval = mean_interval(scores, groups)
        questions = (as_text(records[index]["text"]) for index in range(len(records)))
        return {
            "metrics": self._summary(scores, given, rule) | {"accuracy_interval": interval[1:]},
            "groups": len(np.unique(groups)),
            "protocol": {
                "metric": METRICS[rule],
                "rule": str(rule),
                "interval": "95%, bootstrap over groups",
                "answers": len(self.answers),
                "answer_list": self.answers.digest,
                "image_size": self.task.model.image_size,
                "view": "squash",
                **self._text_protocol(questions),
            },
        }

    def predict(
        self, params: Tree, records: Records, top: int, place: Place
    ) -> Iterator[dict[str, Any]]:
        """Yields the most likely answer of each record, and the ``top`` most likely ones.

        Answers do not exclude each other, so their probabilities need not add up to 1.

        Args:
          params: on the devices.
          records: with ``id``, ``image`` and ``text``.
          top: answers to list with their probabilities.
          place: devices.
        """
        for row in self._all_logits(params, records, place).astype(np.float64):
            listed = best_of(self.answers.answers, row, top)
            likely = [(answer, 1 / (1 + math.exp(-logit))) for answer, logit in listed]
            yield {"answer": listed[0][0], "top": likely}

    def _all_logits(
        self, params: Tree, records: Records, place: Place, batches: int = 0
    ) -> Float[np.ndarray, "A C"]:
        """Returns logits of all answers for each record; the records' answers are not read."""
        transform = self._example({}, Rule.EXACT, augment=False)
        size = self.task.question.batch_size
        outputs = outputs_of(self._logits, params, records, transform, size, place, batches=batches)
        return np.asarray(outputs.outputs, np.float32)

    def _evaluate_state(
        self, held_out: PreparedSet, place: Place, state: TrainState, frozen: Tree
    ) -> dict[str, float]:
        records = held_out.records(VALIDATION)
        batches = place.run.evaluate_batches
        best = self._all_logits(state.params, records, place, batches).argmax(axis=1)
        given = _given(records, len(best))
        rule = self._rule(map(len, given))
        figures = self._summary(self._scores(best, given, rule), given, rule)
        return {f"{ANSWER}/{name}": value for name, value in figures.items()}

    def _scores(
        self, chosen: Iterable[int], given: Sequence[Sequence[str]], rule: Rule
    ) -> Float[np.ndarray, " A"]:
        names = self.answers.answers
        pairs = zip(chosen, given, strict=True)
        return np.array([vqa_score(names[best], answers, rule) for best, answers in pairs])

    def _summary(
        self, scores: Float[np.ndarray, " A"], given: Sequence[Sequence[str]], rule: Rule
    ) -> dict[str, float | int]:
        """Returns the mean score, also by type of answer, beside what it is judged by.

        ``prior`` is the score of always giving the list's first answer, in a list that was made
        here the most frequent one of training. ``covered`` is that of the best answer of the list.
        """
        listed = set(self.answers.answers)
        known = [listed & {normalise(answer) for answer in answers} for answers in given]
        best = [
            max((vqa_score(each, answers, rule) for each in names), default=0.0)
            for names, answers in zip(known, given, strict=True)
        ]
        return {
            **summarise(scores, [answer_type(majority(answers)) for answers in given]),
            "prior": float(self._scores([0] * len(given), given, rule).mean()),
            "covered": float(np.mean(best)),
        }

    def _facts(self, row: Arrays) -> Mapping[str, str]:
        listed = zip(row["answers"].tolist(), row["scores"].tolist(), strict=True)
        told = [f"{self.answers.answers[each]} {score:.2f}" for each, score in listed if score]
        return {"answers": ", ".join(told) or "none of the list"}

    def _example(self, numbers: Mapping[str, int], rule: Rule, *, augment: bool) -> QuestionExample:
        task = self.task
        return QuestionExample(
            task.question, task.model.image_size, self.text, numbers, rule, augment
        )

    def _rule(self, people: Iterable[int]) -> Rule:
        """Returns the rule that the settings name, or else that of a set's numbers of answers."""
        return choose_rule(people) if self.task.rule == "auto" else Rule(self.task.rule)


def _given(records: Records, count: int) -> list[list[str]]:
    """Returns what people answered to the first questions."""
    return [[as_text(answer) for answer in records[index]["answers"]] for index in range(count)]
