"""Visual reasoning with its tokenizer: data, evaluation, predictions."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlbeit_jax.config.common import RunConfig
from vlbeit_jax.data.examples.labelled import as_text
from vlbeit_jax.data.examples.statements import StatementExample
from vlbeit_jax.data.records import ConcatRecords, Records
from vlbeit_jax.data.source import VALIDATION, PreparedSet
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.metrics.classification import negative_log_likelihood
from vlbeit_jax.metrics.reasoning import Judged, is_correct
from vlbeit_jax.objectives.judging import STATEMENT, Judging
from vlbeit_jax.shapes import Float, Int, Tree
from vlbeit_jax.tasks.assets import open_text_tokenizer
from vlbeit_jax.tasks.base import Place
from vlbeit_jax.tasks.figures import Headline
from vlbeit_jax.tasks.one_stream import OneStreamData, open_sets
from vlbeit_jax.tasks.open_fine_tuned import OpenFineTuned, groups_of
from vlbeit_jax.tasks.predicting import outputs_of
from vlbeit_jax.tasks.reading import Arrays
from vlbeit_jax.training.state import TrainState
from vlbeit_jax.types import Kind

TRUTHS = ("false", "true")  # By the number of their logit.


class OpenVisualReasoning(OpenFineTuned):
    """A task of statements about two images; see ``OpenFineTuned``."""

    kind = Kind.STATEMENTS
    method = "judge"
    needs = frozenset({"images", "text"})
    chance = {STATEMENT: 1 / len(TRUTHS)}
    headlines = (
        Headline(
            f"{STATEMENT}/consistency",
            "consistency",
            share=True,
            baseline=f"{STATEMENT}/consistency_chance",
        ),
    )
    explained = frozenset({"truth"})
    text: TextTokenizer

    def __init__(self, task: Any, text_tokenizer: str | Path):
        """Opens the tokenizer of a ``tasks.visual_reasoning.VisualReasoning``.

        Raises:
          UsageError: it is missing or does not fit.
        """
        super().__init__(task, open_text_tokenizer(text_tokenizer, task.model))
        self._logits = Judging(task.network).logits

    def training_data(self, run: RunConfig) -> OneStreamData:
        """Opens the sets of statements.

        Raises:
          UsageError: one is missing or of another kind.
        """
        sets = open_sets(self.task.statement, [self.kind], run)
        transform = self.make_example(labelled=True, augment=True)
        return OneStreamData(STATEMENT, self.task.statement, sets, transform, run.seed)

    def _facts(self, row: Arrays) -> Mapping[str, str]:
        return {"statement": TRUTHS[int(row["truth"])]}

    def make_example(self, *, labelled: bool, augment: bool) -> StatementExample:
        """Returns what makes an example of a record."""
        task = self.task
        return StatementExample(task.statement, task.model.image_size, self.text, labelled, augment)

    def evaluate(
        self, params: Tree, sets: Sequence[PreparedSet], split: str, place: Place
    ) -> dict[str, Any]:
        """Returns accuracy and consistency on a split of some sets, and the protocol.

        Args:
          params: on the devices.
          sets: of statements.
          split: of each set.
          place: devices.
        """
        records = ConcatRecords([each.records(split) for each in sets])
        judged = self._judged(params, records, place)
        groups = groups_of(records)
        intervals = {
            f"{name}_interval": interval[1:] for name, interval in judged.intervals(groups).items()
        }
        statements = (as_text(records[index]["text"]) for index in range(len(records)))
        return {
            "metrics": judged.summary() | intervals,
            "groups": len(np.unique(groups)),
            "protocol": {
                "metric": "accuracy, and consistency: share of statements whose records are all "
                "right (NLVR2)",
                "interval": "95%, bootstrap over groups; consistency: over the groups of "
                "statements' first records",
                "ties": "wrong",
                "image_size": self.task.model.image_size,
                "view": "squash",
                **self._text_protocol(statements),
            },
        }

    def predict(
        self, params: Tree, records: Records, top: int, place: Place
    ) -> Iterator[dict[str, Any]]:
        """Yields for each record whether its statement is true, and the probabilities.

        Args:
          params: on the devices.
          records: with ``id``, ``image``, ``second_image`` and ``text``.
          top: truth values to list with their probabilities.
          place: devices.
        """
        for false, true in self._all_logits(params, records, place).astype(np.float64):
            likely = float(1 / (1 + np.exp(false - true)))
            shares = [("true", likely), ("false", 1 - likely)]
            yield {
                "truth": bool(true > false),
                "top": sorted(shares, key=lambda each: -each[1])[:top],
            }

    def _all_logits(
        self, params: Tree, records: Records, place: Place, batches: int = 0
    ) -> Float[np.ndarray, "A 2"]:
        """Returns logits of false and true for each record; the records' truth is not read."""
        transform = self.make_example(labelled=False, augment=False)
        size = self.task.statement.batch_size
        outputs = outputs_of(self._logits, params, records, transform, size, place, batches=batches)
        return np.asarray(outputs.outputs, np.float32)

    def _judged(self, params: Tree, records: Records, place: Place, batches: int = 0) -> Judged:
        logits = self._all_logits(params, records, place, batches)
        truth, statement = truths_of(records, len(logits))
        loss = negative_log_likelihood(logits, truth)
        return Judged(is_correct(logits, truth), truth, statement, loss)

    def _evaluate_state(
        self, held_out: PreparedSet, place: Place, state: TrainState, frozen: Tree
    ) -> dict[str, float]:
        records = held_out.records(VALIDATION)
        judged = self._judged(state.params, records, place, place.run.evaluate_batches)
        return {f"{STATEMENT}/{name}": value for name, value in judged.summary().items()}


def truths_of(records: Records, count: int) -> tuple[Int[np.ndarray, " A"], Int[np.ndarray, " A"]]:
    """Returns truth (0 or 1) and number of the statement of the first records."""
    rows = [records[index] for index in range(count)]
    names = [as_text(row["statement"]) for row in rows]
    truth = np.array([bool(row["truth"]) for row in rows], np.int64)
    return truth, np.unique(names, return_inverse=True)[1].astype(np.int64)
