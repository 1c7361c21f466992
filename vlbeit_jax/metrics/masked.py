"""Masked accuracy with its baselines, and the cross-modal gain with its interval.

NumPy only, on the totals of each example.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from vlbeit_jax.shapes import Float, Int

RESAMPLES = 2000


@dataclasses.dataclass
class Scores:
    """Totals of one term per scored example, and how often each target came up.

    Attributes:
      uid: which record an example comes from.
      right: right answers.
      loss: summed negative log-likelihood, nats.
      weight: masked positions.
      targets: count of every target over all examples.
    """

    uid: Int[np.ndarray, "A"]
    right: Float[np.ndarray, "A"]
    loss: Float[np.ndarray, "A"]
    weight: Float[np.ndarray, "A"]
    targets: Float[np.ndarray, "V"]

    def summary(self) -> dict[str, float | int]:
        """Accuracy and loss per masked position, with what it takes to judge them.

        ``chance`` is a uniform guess; ``unigram`` the best constant answer, chosen with hindsight
        on these very targets, so that no predictor blind to its input can beat it.
        """
        count = self.weight.sum()
        share = max(count, 1.0)
        return {
            "accuracy": float(self.right.sum() / share),
            "chance": 1 / len(self.targets),
            "unigram": float(self.targets.max() / share),
            "loss": float(self.loss.sum() / share),
            "count": round(float(count)),
        }


class Interval(NamedTuple):
    """A value and the bounds of its 95% interval."""

    value: float
    low: float
    high: float


def gain(own: Scores, other: Scores, seed: int = 0) -> Interval:
    """Accuracy with the right partner minus accuracy with a wrong one, at the same positions.

    The interval is the bootstrap's 2.5% to 97.5% over records: all masks drawn for a record go
    together.

    Args:
      own: scored with the right partner.
      other: the same examples in the same order, each with somebody else's partner.
      seed: of the bootstrap.
    """
    assert np.array_equal(own.uid, other.uid) and np.array_equal(own.weight, other.weight)
    _, record = np.unique(own.uid, return_inverse=True)
    difference = np.bincount(record, own.right - other.right)
    weight = np.bincount(record, own.weight)
    rng = np.random.default_rng(seed)
    records = len(weight)
    drawn = np.empty(RESAMPLES)
    for index in range(RESAMPLES):
        times = np.bincount(rng.integers(0, records, records), minlength=records)
        drawn[index] = (times @ difference) / max(times @ weight, 1.0)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(difference.sum() / max(weight.sum(), 1.0)), float(low), float(high))
