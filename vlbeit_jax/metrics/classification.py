"""Accuracy of classification. NumPy only; ties count against the right answer."""

import dataclasses
from typing import Any

import numpy as np

from vlbeit_jax.shapes import Float, Int


def ranks(logits: Float[np.ndarray, "A C"], labels: Int[np.ndarray, " A"]) -> Int[np.ndarray, " A"]:
    """Returns how many wrong classes have a logit that is at least the right one's.

    So a constant prediction is never right. Sorting would make it right for one of the classes. A
    NaN counts against the right answer too.
    """
    right = np.take_along_axis(logits, labels[:, None], axis=1)
    at_least = ~(logits < right)
    return at_least.sum(axis=1) - 1


@dataclasses.dataclass(frozen=True)
class Answers:
    """The predictions of some records.

    Attributes:
      rank: of the right class, as ``ranks`` counts; 0 if it is predicted.
      label: number of the right class.
      loss: negative log-likelihood of the right class, nats.
    """

    rank: Int[np.ndarray, " A"]
    label: Int[np.ndarray, " A"]
    loss: Float[np.ndarray, " A"]

    def summary(self, classes: int) -> dict[str, float | int]:
        """Returns accuracies with what it takes to judge them.

        ``majority`` is the best constant answer, chosen with hindsight on these very labels;
        ``mean_class`` is the mean over the classes that occur.
        """
        counts = np.bincount(self.label, minlength=classes)
        figures = {"accuracy": float((self.rank == 0).mean())}
        if classes > 5:
            figures["top5"] = float((self.rank < 5).mean())
        per_class = self.per_class(classes)
        return figures | {
            "mean_class": float(np.nanmean(per_class)),
            "chance": 1 / classes,
            "majority": float(counts.max() / len(self.label)),
            "loss": float(self.loss.mean()),
            "count": len(self.label),
        }

    def per_class(self, classes: int) -> Float[np.ndarray, " C"]:
        """Returns the accuracy on the records of each class; NaN for a class without any."""
        right = np.bincount(self.label, self.rank == 0, minlength=classes)
        counts = np.bincount(self.label, minlength=classes)
        return np.divide(right, counts, out=np.full(classes, np.nan), where=counts > 0)

    def by_name(self, names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
        """Returns accuracy and count of each class that occurs, by its name."""
        counts = np.bincount(self.label, minlength=len(names))
        return {
            name: {"accuracy": float(accuracy), "count": int(count)}
            for name, accuracy, count in zip(names, self.per_class(len(names)), counts, strict=True)
            if count
        }


def negative_log_likelihood(
    logits: Float[np.ndarray, "A C"], labels: Int[np.ndarray, " A"]
) -> Float[np.ndarray, " A"]:
    """Returns the negative log-likelihood of each label, nats, in float64."""
    logits = logits.astype(np.float64)
    top = logits.max(axis=1, keepdims=True)
    total = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
    return total - np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]
