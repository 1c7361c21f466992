"""Question answering with its tokenizer and its list of answers."""

import functools
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vlbeit_jax.config.common import RunConfig
from vlbeit_jax.data import pipeline
from vlbeit_jax.data.answers import PEOPLE
from vlbeit_jax.data.examples.labelled import as_text
from vlbeit_jax.data.examples.paired import QuestionExample
from vlbeit_jax.data.records import Records
from vlbeit_jax.data.sampling import EvaluationExamples
from vlbeit_jax.data.source import TRAIN, VALIDATION, PreparedSet
from vlbeit_jax.errors import UsageError
from vlbeit_jax.metrics.vqa import Rule, answer_type, choose_rule, majority, summarise, vqa_score
from vlbeit_jax.models.params import Tree
from vlbeit_jax.models.vqa import VQA
from vlbeit_jax.objectives.answering import Answering
from vlbeit_jax.shapes import Float, Int
from vlbeit_jax.tasks.assets import TEXT_TOKENIZER
from vlbeit_jax.tasks.base import Evaluator, Place
from vlbeit_jax.tasks.paired import PairedData, open_sets, open_text_tokenizer
from vlbeit_jax.training.mesh import on_mesh, padded_batch, put_batch, replicated
from vlbeit_jax.training.state import TrainState
from vlbeit_jax.types import Kind

QUESTION = "question"  # The one stream.


class OpenVQA:
    """A network that answers questions; see ``tasks.base.OpenTask``.

    Attributes:
      task: its description, a ``tasks.vqa.VQATask`` with its answers.
      text: the tokenizer of questions.
      answers: the list.
      frozen: empty.
      chance: empty: what a guess scores depends on the answers.
    """

    def __init__(self, task: Any, text_tokenizer: str | Path):
        """Opens the tokenizer.

        Raises:
          UsageError: it is missing or does not fit.
        """
        self.task, self.answers = task, task.opened_answers
        assert self.answers is not None, "resolved"
        self.text = open_text_tokenizer(text_tokenizer, task.model)
        self.frozen: Tree = {}
        self.chance: Mapping[str, float] = {}

    @property
    def fingerprints(self) -> Mapping[str, Any]:
        """Those of the tokenizer and of the list of answers."""
        return {TEXT_TOKENIZER: self.text.fingerprint, "answers": self.answers.digest}

    def save_assets(self, folder: Path) -> None:
        """Copies tokenizer and answers into a run, which then needs the originals no more."""
        shutil.copytree(self.text.folder, folder / TEXT_TOKENIZER, dirs_exist_ok=True)
        self.answers.save(folder)

    def training_data(self, run: RunConfig) -> PairedData:
        """Opens the sets of questions.

        Raises:
          UsageError: one is missing or of another kind.
        """
        sets = open_sets(self.task.question, Kind.QUESTIONS, run)
        rule = self._rule(int(people) for each in sets for people in _people(each, TRAIN))
        transform = self.make_example(rule, augment=True)
        return PairedData(QUESTION, self.task.question, sets, transform, run.seed)

    def make_example(self, rule: Rule, augment: bool) -> QuestionExample:
        """Returns how records become examples."""
        task, numbers = self.task, self.answers.numbers
        return QuestionExample(
            task.question, task.model.image_size, self.text, numbers, rule, augment
        )

    def evaluators(self, data: PairedData, place: Place) -> Sequence[Evaluator]:
        """Returns the score on held-back questions, beside that of the most frequent answer."""
        records = data.sets[0].records(VALIDATION) if place.run.evaluate_every else []

        def run(state: TrainState, frozen: Tree) -> dict[str, float]:
            limit = place.run.evaluate_batches
            figures = self.evaluate(state.params, records, place, limit)
            return {name: value for name, value in figures.items() if not isinstance(value, str)}

        return [Evaluator("vqa", place.run.evaluate_every, run)]

    def prepare_state(self, state: TrainState, data: PairedData, place: Place) -> TrainState:
        """Returns the state as it is."""
        return state

    def evaluate(
        self, params: Tree, records: Records, place: Place, batches: int = 0
    ) -> dict[str, Any]:
        """Returns the mean score, also by type of answer, and what it takes to judge it.

        ``prior`` is the score of always giving the list's first answer, which is the most frequent
        one in training. ``covered`` is the mean of the best score that any answer of the list has.

        Args:
          params: on the devices.
          records: questions with answers.
          place: devices, seed and loader.
          batches: stop after so many; 0: take all.

        Raises:
          UsageError: there are no questions.
        """
        logits = self.logits(params, records, place, batches)
        if not len(logits):
            raise UsageError("there are no questions to evaluate")
        given = [
            [as_text(answer) for answer in records[index]["answers"]]
            for index in range(len(logits))
        ]
        rule = self._rule(map(len, given))
        listed = set(self.answers.answers)
        scores = [
            vqa_score(self.answers.answers[best], answers, rule)
            for best, answers in zip(logits.argmax(axis=1), given, strict=True)
        ]
        prior = [vqa_score(self.answers.answers[0], answers, rule) for answers in given]
        covered = [
            max((vqa_score(each, answers, rule) for each in answers if each in listed), default=0)
            for answers in given
        ]
        types = [answer_type(majority(answers)) for answers in given]
        return {
            **summarise(np.array(scores), types),
            "prior": float(np.mean(prior)),
            "covered": float(np.mean(covered)),
            "rule": str(rule),
        }

    def logits(
        self, params: Tree, records: Records, place: Place, batches: int = 0
    ) -> Float[np.ndarray, "A C"]:
        """Returns logits of all answers for each record, in the records' order.

        Args:
          params: on the devices.
          records: questions; their answers are not read.
          place: devices, seed and loader.
          batches: stop after so many; 0: take all.
        """
        size = padded_batch(self.task.question.batch_size, place.mesh)
        task = self.task
        transform = QuestionExample(
            task.question, task.model.image_size, self.text, {}, Rule.EXACT, augment=False
        )
        examples = EvaluationExamples(
            records, transform, size, seed=place.run.seed, max_batches=batches
        )
        feed = pipeline.batches(examples, size, shard=place.shard, loader=place.loader)
        compiled, found = _compiled(task.network, place.mesh), []
        with closing(feed) as rows, on_mesh(place.mesh):
            for batch in rows:
                found.append(jax.device_get(compiled(params, put_batch(batch, place.mesh))))
        if not found:
            return np.zeros((0, len(self.answers)), np.float32)
        return np.concatenate(found)[: len(records)]

    def top(
        self, logits: Float[np.ndarray, "A C"], k: int
    ) -> tuple[Int[np.ndarray, "A k"], Float[np.ndarray, "A k"]]:
        """Returns the ``k`` most likely answers of each question, and their probabilities.

        Answers do not exclude each other, so the probabilities of a question need not add up to 1.
        """
        best = np.argsort(-logits, axis=1, kind="stable")[:, :k]
        return best, 1 / (1 + np.exp(-np.take_along_axis(logits, best, axis=1)))

    def _rule(self, people: Any) -> Rule:
        return choose_rule(people) if self.task.rule == "auto" else Rule(self.task.rule)


def _people(found: PreparedSet, split: str) -> list[str]:
    """Returns how many people answered a question of a split, each number once."""
    return list(found.meta[PEOPLE].get(split, {}))


@functools.cache
def _compiled(network: VQA, mesh: Mesh) -> Any:
    return jax.jit(Answering(network).logits, out_shardings=replicated(mesh))
