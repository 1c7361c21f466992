"""Accuracy and consistency of judgements of statements, as NLVR2 measures them. NumPy only.

NLVR2's evaluator (Suhr et al., arXiv 1811.00491) takes the examples of one sentence together by
their identifiers. Tests hold golden values.
"""

import dataclasses

import numpy as np

from vlbeit_jax.metrics.interval import Interval, mean_interval
from vlbeit_jax.shapes import Bool, Float, Int

TRUTHS = 2


def is_correct(
    logits: Float[np.ndarray, "A 2"], truth: Int[np.ndarray, " A"]
) -> Bool[np.ndarray, " A"]:
    """Returns whether the right truth value has the larger logit.

    A tie is wrong, so that a model that gives both the same is never right.

    Args:
      logits: of false and true.
      truth: 1 for a true statement, else 0.
    """
    right = np.take_along_axis(logits, truth[:, None], axis=1)[:, 0]
    wrong = np.take_along_axis(logits, 1 - truth[:, None], axis=1)[:, 0]
    return right > wrong


@dataclasses.dataclass(frozen=True)
class Judged:
    """How the records of some statements were judged.

    Attributes:
      correct: whether each record was.
      truth: 1 where the statement is true of the record's images, else 0.
      statement: number of each record's statement.
      loss: negative log-likelihood of the truth, nats.
    """

    correct: Bool[np.ndarray, " A"]
    truth: Int[np.ndarray, " A"]
    statement: Int[np.ndarray, " A"]
    loss: Float[np.ndarray, " A"]

    def summary(self) -> dict[str, float | int]:
        """Returns accuracy and consistency, with what it takes to judge them.

        ``consistency`` is the share of statements of which every record is right. ``majority`` is
        the accuracy of the better constant answer, and ``consistency_chance`` is the consistency
        of a coin.
        """
        consistent, sizes = self._by_statement()
        true = float(self.truth.mean())
        return {
            "accuracy": float(self.correct.mean()),
            "consistency": float(consistent.mean()),
            "majority": max(true, 1 - true),
            "consistency_chance": float(np.mean(0.5**sizes)),
            "loss": float(self.loss.mean()),
            "count": len(self.correct),
            "statements": len(sizes),
        }

    def intervals(self, groups: Int[np.ndarray, " A"]) -> dict[str, Interval]:
        """Returns accuracy and consistency with their 95% intervals, by a bootstrap over groups.

        A statement whose records are in several groups belongs to that of its first record.

        Args:
          groups: number of each record's group.
        """
        consistent, _ = self._by_statement()
        _, first = np.unique(self.statement, return_index=True)
        return {
            "accuracy": mean_interval(self.correct.astype(float), groups),
            "consistency": mean_interval(consistent.astype(float), groups[first]),
        }

    def _by_statement(self) -> tuple[Bool[np.ndarray, " S"], Int[np.ndarray, " S"]]:
        """Returns whether all records of each statement are right, and their number."""
        _, number = np.unique(self.statement, return_inverse=True)
        sizes = np.bincount(number)
        return np.bincount(number, self.correct) == sizes, sizes
