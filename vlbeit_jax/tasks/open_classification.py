"""A classifier with its classes, its training data, its evaluation and its predictions."""

import functools
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlbeit_jax.config.common import RunConfig
from vlbeit_jax.config.parse import fingerprint
from vlbeit_jax.data.examples.base import Transform
from vlbeit_jax.data.examples.labelled import as_text
from vlbeit_jax.data.records import ConcatRecords, Records
from vlbeit_jax.data.source import VALIDATION, PreparedSet
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.errors import UsageError
from vlbeit_jax.metrics.classification import Answers, negative_log_likelihood, ranks
from vlbeit_jax.metrics.interval import ratio_interval
from vlbeit_jax.models.params import Tree
from vlbeit_jax.objectives.supervised import CLASS, Supervised
from vlbeit_jax.tasks.assets import TEXT_TOKENIZER, write_classes
from vlbeit_jax.tasks.base import Evaluator, Place
from vlbeit_jax.tasks.one_stream import OneStreamData, open_sets
from vlbeit_jax.tasks.predicting import Rows, outputs_of
from vlbeit_jax.training.state import TrainState, declarations

TIES = "a class that is as likely as the right one counts as more likely"


class OpenClassification:
    """See ``tasks.base.OpenTask`` and ``tasks.base.FineTuned``.

    Attributes:
      task: its description, a ``tasks.classification.Classification`` with names of classes.
      frozen: nothing; all parameters are trained.
      kind: of the sets that it takes.
      needs_captions: a prediction needs none.
    """

    needs_captions = False

    def __init__(
        self,
        task: Any,
        make_example: Callable[..., Transform],
        protocol: Mapping[str, Any],
        tokenizer: TextTokenizer | None = None,
    ):
        """Takes what belongs to one modality.

        Args:
          task: description.
          make_example: from ``augment`` and ``labelled`` to how records become examples.
          protocol: how inputs are made in evaluation.
          tokenizer: of texts.
        """
        self.task, self.make_example, self._protocol = task, make_example, dict(protocol)
        self.frozen: Tree = {}
        self.kind = task.records
        self._tokenizer = tokenizer
        self._logits = Supervised(task.network).logits

    @property
    def fingerprints(self) -> dict[str, Any]:
        """Of the list of classes, and of the tokenizer."""
        found = {"classes": fingerprint(list(self.task.class_names))}
        return found | ({TEXT_TOKENIZER: self._tokenizer.fingerprint} if self._tokenizer else {})

    @property
    def chance(self) -> Mapping[str, float]:
        """Accuracy of a uniform guess, by loss."""
        return {CLASS: 1 / self.task.num_classes}

    @property
    def needs_image(self) -> bool:
        """Whether a prediction is about an image; otherwise it is about a text."""
        return self._tokenizer is None

    @property
    def needs_text(self) -> bool:
        """Whether a prediction is about a text."""
        return self._tokenizer is not None

    def abstract_params(self) -> Tree:
        """Returns the shapes of the parameters."""
        return declarations(self.task.init).shapes

    def save_assets(self, folder: Path) -> None:
        """Writes the list of classes into a run, and copies the tokenizer."""
        write_classes(folder, self.task.class_names)
        if self._tokenizer:
            shutil.copytree(self._tokenizer.folder, folder / TEXT_TOKENIZER, dirs_exist_ok=True)

    def training_data(self, run: RunConfig) -> OneStreamData:
        """Opens the sets.

        Raises:
          UsageError: one is missing, of the wrong kind, or has other classes.
        """
        task = self.task
        sets = open_sets(task.stream, [self.kind], run)
        self.require_classes(sets)
        return OneStreamData(
            task.schedule, task.stream, sets, self.make_example(augment=True), run.seed
        )

    def evaluators(self, data: OneStreamData, place: Place) -> Sequence[Evaluator]:
        """Returns accuracies on the held-back part of the first source."""
        run = functools.partial(self._evaluate_state, data, place)
        return [Evaluator("", place.run.evaluate_every, run)]

    def prepare_state(self, state: TrainState, data: OneStreamData, place: Place) -> TrainState:
        """Returns the state unchanged: nothing has to be prepared."""
        return state

    def require_classes(self, sets: Sequence[PreparedSet]) -> None:
        """Checks that the model knows the classes of all sets.

        Raises:
          UsageError: it does not.
        """
        for each in sets:
            unknown = [name for name in each.meta["classes"] if name not in self.task.class_names]
            if unknown:
                raise UsageError(
                    f"{each.folder} has classes that the model does not know: "
                    f"{', '.join(map(repr, unknown[:5]))}{', ...' if len(unknown) > 5 else ''}; it "
                    f"knows {len(self.task.class_names)}, those of its first source"
                )

    def evaluate(
        self, params: Tree, sets: Sequence[PreparedSet], split: str, place: Place
    ) -> dict[str, Any]:
        """Returns figures on a split of some sets, by class too, and how inputs were made.

        Args:
          params: on the devices.
          sets: whose classes the model knows.
          split: of each set.
          place: devices.
        """
        self.require_classes(sets)
        records = ConcatRecords([each.records(split) for each in sets])
        answers = _answers(self._rows(params, records, place))
        groups = [as_text(records[index]["group"]) for index in range(len(records))]
        _, group = np.unique(groups, return_inverse=True)
        right = np.bincount(group, answers.rank == 0)
        interval = ratio_interval(right.astype(float), np.bincount(group).astype(float))
        names = self.task.class_names
        return {
            "metrics": answers.summary(len(names)) | {"accuracy_interval": interval[1:]},
            "by_class": answers.by_name(names),
            "groups": len(right),
            "protocol": {
                "metric": "share of records whose right class is the most likely one (top 1), or "
                "among the five most likely ones (top 5)",
                "ties": TIES,
                "interval": "95%, bootstrap over groups",
                "classes": self.fingerprints["classes"],
                **self._protocol,
                **self._share_of_cut_texts(records),
            },
        }

    def predict(
        self, params: Tree, records: Records, top: int, place: Place
    ) -> Iterator[dict[str, Any]]:
        """Yields the most likely class of each record, and the ``top`` most likely ones.

        Args:
          params: on the devices.
          records: with ``id``, and ``image`` or ``text``.
          top: classes to list with their probabilities.
          place: devices.
        """
        transform = self.make_example(augment=False, labelled=False)
        logits = self._rows(params, records, place, transform).outputs.astype(np.float64)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = odds / odds.sum(axis=1, keepdims=True)
        for row in probabilities:
            best = np.argsort(-row, kind="stable")[:top]
            listed = [[self.task.class_names[index], float(row[index])] for index in best]
            yield {"label": self.task.class_names[int(row.argmax())], "top": listed}

    def _rows(
        self,
        params: Tree,
        records: Records,
        place: Place,
        transform: Transform | None = None,
        batches: int = 0,
    ) -> Rows:
        transform = transform or self.make_example(augment=False)
        size = self.task.stream.batch_size
        return outputs_of(self._logits, params, records, transform, size, place, batches=batches)

    def _evaluate_state(
        self, data: OneStreamData, place: Place, state: TrainState, frozen: Tree
    ) -> dict[str, float]:
        records = data.sets[0].records(VALIDATION)
        rows = self._rows(state.params, records, place, batches=place.run.evaluate_batches)
        summary = _answers(rows).summary(self.task.num_classes)
        return {f"{CLASS}/{name}": value for name, value in summary.items()}

    def _share_of_cut_texts(self, records: Records) -> dict[str, float]:
        if self._tokenizer is None:
            return {}
        longest = self.task.text.text_length - 2
        texts = (as_text(records[index]["text"]) for index in range(len(records)))
        cut = sum(len(self._tokenizer.encode(text)) > longest for text in texts)
        return {"share_of_cut_texts": cut / len(records)}


def _answers(rows: Rows) -> Answers:
    logits, labels = np.asarray(rows.outputs, np.float32), rows.batch["label"]
    return Answers(ranks(logits, labels), labels, negative_log_likelihood(logits, labels))
