"""Masked accuracy with its baselines, and the cross-modal gain with its interval.

NumPy only, on the totals of each example.
"""

import dataclasses

import numpy as np

from vlbeit_jax.metrics.interval import Interval, ratio_interval
from vlbeit_jax.shapes import Float, Int


@dataclasses.dataclass
class Scores:
    """Totals of one term per scored example, and how often each target came up.

    Attributes:
      uid: which record an example comes from.
      correct: right answers.
      loss: summed negative log-likelihood, nats.
      weight: masked positions.
      targets: count of every target over all examples.
    """

    uid: Int[np.ndarray, " A"]
    correct: Float[np.ndarray, " A"]
    loss: Float[np.ndarray, " A"]
    weight: Float[np.ndarray, " A"]
    targets: Float[np.ndarray, " V"]

    def summary(self) -> dict[str, float | int]:
        """Returns accuracy and loss per masked position, with what it takes to judge them.

        ``chance`` is a uniform guess; ``unigram`` the best constant answer, chosen with hindsight
        on these very targets, so that no predictor blind to its input can beat it.
        """
        count = self.weight.sum()
        share = max(count, 1.0)
        return {
            "accuracy": float(self.correct.sum() / share),
            "chance": 1 / len(self.targets),
            "unigram": float(self.targets.max() / share),
            "loss": float(self.loss.sum() / share),
            "count": round(float(count)),
        }

    def accuracy_interval(self, seed: int = 0) -> tuple[float, float]:
        """Returns the bounds of the accuracy's 95% interval.

        The bootstrap draws whole records, each with all masks that were drawn for it.

        Args:
          seed: of the bootstrap.
        """
        _, record = np.unique(self.uid, return_inverse=True)
        correct, weight = np.bincount(record, self.correct), np.bincount(record, self.weight)
        interval = ratio_interval(correct.astype(float), weight.astype(float), seed)
        return interval.low, interval.high


def gain(own: Scores, other: Scores, seed: int = 0) -> Interval:
    """Accuracy with the right partner minus accuracy with a wrong one, at the same positions.

    The interval is the bootstrap's over records: all masks drawn for a record go together.

    Args:
      own: scored with the right partner.
      other: the same examples in the same order, each with somebody else's partner.
      seed: of the bootstrap.
    """
    assert np.array_equal(own.uid, other.uid) and np.array_equal(own.weight, other.weight)
    _, record = np.unique(own.uid, return_inverse=True)
    difference = np.bincount(record, own.correct - other.correct)
    weight = np.bincount(record, own.weight)
    # Of no rows at all, bincount makes integers.
    return ratio_interval(difference.astype(float), weight.astype(float), seed)
