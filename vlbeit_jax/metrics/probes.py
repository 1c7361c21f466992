"""What frozen features are worth: closed-form ridge regression and nearest neighbours.

NumPy only, in float64. A probe trains nothing in the network, so it takes seconds.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from vlbeit_jax.shapes import Float, Int

BIAS = 100.0  # The constant feature: so large that the ridge hardly holds the intercept back.
STD_FLOOR = 1e-5  # Added to every deviation, so that a constant feature does not divide by 0.


@dataclasses.dataclass(frozen=True)
class Ridge:
    """Least squares on whitened features, ready to be solved for any strength of the ridge.

    As big_vision's few-shot evaluator (``big_vision/evaluators/fewshot_lsr.py``): each feature is
    centred and divided by its deviation, a constant feature of 100 is added, the targets are +1 for
    the class and -1 for all others, and the likeliest class is the one with the largest score.

    Attributes:
      mean: of each feature over the training rows.
      deviation: of each feature over the training rows, plus 1e-5.
      eigenvalues: of the Gram matrix, over features or over rows, whichever is smaller.
      left: with ``right`` and the eigenvalues, gives the weights for any strength.
      right: see ``left``.
    """

    mean: Float[np.ndarray, " I"]
    deviation: Float[np.ndarray, " I"]
    eigenvalues: Float[np.ndarray, " E"]
    left: Float[np.ndarray, "I1 E"]
    right: Float[np.ndarray, "E C"]

    @classmethod
    def fit(
        cls, features: Float[np.ndarray, "A I"], labels: Int[np.ndarray, " A"], classes: int
    ) -> "Ridge":
        """Decomposes the training rows once, so that each strength costs two products.

        Args:
          features: of the training rows, finite.
          labels: their classes, in [0, ``classes``).
          classes: number of classes.
        """
        features = features.astype(np.float64)
        mean, deviation = features.mean(axis=0), features.std(axis=0) + STD_FLOOR
        rows = _with_constant((features - mean) / deviation)
        targets = np.where(labels[:, None] == np.arange(classes), 1.0, -1.0)
        # (X'X + s)^-1 X'Y = X'(XX' + s)^-1 Y: the smaller of both matrices is decomposed.
        if rows.shape[0] >= rows.shape[1]:
            eigenvalues, vectors = np.linalg.eigh(rows.T @ rows)
            return cls(mean, deviation, eigenvalues, vectors, vectors.T @ (rows.T @ targets))
        eigenvalues, vectors = np.linalg.eigh(rows @ rows.T)
        return cls(mean, deviation, eigenvalues, rows.T @ vectors, vectors.T @ targets)

    def scores(
        self, features: Float[np.ndarray, "A I"], strength: float
    ) -> Float[np.ndarray, "A C"]:
        """Returns the score of every class.

        Args:
          features: of new rows.
          strength: of the ridge, positive; big_vision's default is 2^10.
        """
        weights = (self.left / (self.eigenvalues + strength)) @ self.right
        rows = (features.astype(np.float64) - self.mean) / self.deviation
        return _with_constant(rows) @ weights


def _with_constant(rows: Float[np.ndarray, "A I"]) -> Float[np.ndarray, "A I1"]:
    return np.concatenate([rows, np.full((len(rows), 1), BIAS)], axis=1)


def few_of_each(labels: Int[np.ndarray, " A"], classes: int, shots: int, seed: int) -> np.ndarray:
    """Returns the numbers of ``shots`` random rows of each class, or of all if there are fewer.

    Drawn as big_vision draws them: one generator, one permutation per class in their order.
    """
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(np.flatnonzero(labels == each))[:shots] for each in range(classes)]
    return np.concatenate(drawn)


def unit_rows(features: Float[np.ndarray, "A I"]) -> Float[np.ndarray, "A I"]:
    """Returns the rows at length 1, so that distances order them as cosines do; 0 stays 0."""
    features = features.astype(np.float64)
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.where(length > 0, length, 1.0)


def nearest_neighbours(
    features: Float[np.ndarray, "A I"],
    labels: Int[np.ndarray, " A"],
    queries: Float[np.ndarray, "B I"],
    neighbours: Sequence[int],
) -> dict[int, Int[np.ndarray, " B"]]:
    """Returns, by number of neighbours, the class that most of the nearest rows have.

    Distances are Euclidean; give ``unit_rows`` for cosines. Among classes with equally many
    neighbours, the one wins whose nearest row is nearer. Of rows at equal distances the earlier one
    is nearer.

    Args:
      features: of the rows with known classes.
      labels: their classes, not negative.
      queries: features of the rows to be classified.
      neighbours: how many nearest rows vote; several numbers cost one sort.
    """
    features, queries = features.astype(np.float64), queries.astype(np.float64)
    squared = (queries**2).sum(axis=1)[:, None] + (features**2).sum(axis=1)[None]
    order = np.argsort(squared - 2 * queries @ features.T, axis=1, kind="stable")
    near = labels[order[:, : max(neighbours)]]
    return {count: np.array([_vote(row[:count]) for row in near]) for count in neighbours}


def _vote(near: Int[np.ndarray, " K"]) -> int:
    """Returns the commonest class; of several, the one that comes first."""
    counts = np.bincount(near)
    return int(near[np.argmax(counts[near])])
