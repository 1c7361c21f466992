"""A classifier with its classes, its training data, its evaluation and its predictions."""

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
from vlbeit_jax.metrics.interval import mean_interval
from vlbeit_jax.objectives.supervised import CLASS, Supervised
from vlbeit_jax.shapes import Tree
from vlbeit_jax.tasks.assets import write_classes
from vlbeit_jax.tasks.base import Place
from vlbeit_jax.tasks.one_stream import OneStreamData, open_sets
from vlbeit_jax.tasks.open_fine_tuned import OpenFineTuned, best_of, groups_of
from vlbeit_jax.tasks.predicting import Rows, outputs_of
from vlbeit_jax.tasks.reading import Arrays
from vlbeit_jax.training.state import TrainState

TIES = "a class that is as likely as the right one counts as more likely"


class OpenClassification(OpenFineTuned):
    """A task with one class per record; see ``OpenFineTuned``.

    Attributes:
      make_example: from ``augment`` and ``labelled`` to how records become examples.
    """

    method = "classify"
    explained = frozenset({"label"})

    def __init__(
        self,
        task: Any,
        make_example: Callable[..., Transform],
        image_protocol: Mapping[str, Any],
        text: TextTokenizer | None = None,
    ):
        """Takes what belongs to one modality.

        Args:
          task: a ``tasks.classification.Classification`` with names of classes.
          make_example: as above.
          image_protocol: how images are seen in evaluation.
          text: tokenizer of texts; None for images.
        """
        super().__init__(task, text)
        self.make_example, self._image_protocol = make_example, dict(image_protocol)
        self.kind = task.records
        self.needs = frozenset({"text" if text else "image"})
        self.chance = {CLASS: 1 / task.num_classes}
        self._logits = Supervised(task.network).logits

    @property
    def fingerprints(self) -> dict[str, Any]:
        """Of the list of classes, and of the tokenizer."""
        return {"classes": fingerprint(list(self.task.class_names)), **super().fingerprints}

    def save_assets(self, folder: Path) -> None:
        """Writes the list of classes into a run, and copies the tokenizer."""
        super().save_assets(folder)
        write_classes(folder, self.task.class_names)

    def training_data(self, run: RunConfig) -> OneStreamData:
        """Opens the sets.

        Raises:
          UsageError: one is missing, of the wrong kind, or has other classes.
        """
        task = self.task
        sets = open_sets(self.stream, [self.kind], run)
        self.require_classes(sets)
        return OneStreamData(
            task.schedule, self.stream, sets, self.make_example(augment=True), run.seed
        )

    def _facts(self, row: Arrays) -> Mapping[str, str]:
        return {"class": self.task.class_names[int(row["label"])]}

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
        groups = groups_of(records)
        interval = mean_interval((answers.rank == 0).astype(float), groups)
        names = self.task.class_names
        return {
            "metrics": answers.summary(len(names)) | {"accuracy_interval": interval[1:]},
            "by_class": answers.by_name(names),
            "groups": len(np.unique(groups)),
            "protocol": {
                "metric": "share of records whose right class is the most likely one (top 1), or "
                "among the five most likely ones (top 5)",
                "ties": TIES,
                "interval": "95%, bootstrap over groups",
                "classes": self.fingerprints["classes"],
                **self._image_protocol,
                **self._text_protocol(self._texts(records)),
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
            listed = best_of(self.task.class_names, row, top)
            yield {"label": listed[0][0], "top": listed}

    def _rows(
        self,
        params: Tree,
        records: Records,
        place: Place,
        transform: Transform | None = None,
        batches: int = 0,
    ) -> Rows:
        transform = transform or self.make_example(augment=False)
        size = self.stream.batch_size
        return outputs_of(self._logits, params, records, transform, size, place, batches=batches)

    def _evaluate_state(
        self, held_out: PreparedSet, place: Place, state: TrainState, frozen: Tree
    ) -> dict[str, float]:
        records = held_out.records(VALIDATION)
        rows = self._rows(state.params, records, place, batches=place.run.evaluate_batches)
        summary = _answers(rows).summary(self.task.num_classes)
        return {f"{CLASS}/{name}": value for name, value in summary.items()}

    def _texts(self, records: Records) -> Iterator[str]:
        return (as_text(records[index]["text"]) for index in range(len(records)))


def _answers(rows: Rows) -> Answers:
    logits, labels = np.asarray(rows.outputs, np.float32), rows.batch["label"]
    return Answers(ranks(logits, labels), labels, negative_log_likelihood(logits, labels))
