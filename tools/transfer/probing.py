"""Probes over three folds: each picture is tested once, and its test chooses no strength."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tools.emoji.folds import FOLDS, split_of
from tools.transfer.choosing import choose, folds_of
from vlbeit_jax.data.identity import TRAIN, VALIDATION
from vlbeit_jax.metrics.probes import Ridge, few_of_each, nearest_neighbours
from vlbeit_jax.shapes import Bool, Float, Int

STRENGTHS = tuple(4.0**power for power in range(-9, 7))


@dataclasses.dataclass(frozen=True)
class Labelled:
    """What is known about each row besides its features.

    Attributes:
      labels: class of each row.
      groups: name of each row's group.
      classes: number of classes.
      shots: number of labelled rows per class that a probe sees; 0 takes the whole training part.
      draws: number of draws of these rows.
    """

    labels: Int[np.ndarray, " A"]
    groups: np.ndarray
    classes: int
    shots: int = 0
    draws: int = 1

    @property
    def folds(self) -> Int[np.ndarray, " A"]:
        """The fold that tests each row."""
        return folds_of(self.groups)

    def parts(self) -> Iterator[tuple[int, Int[np.ndarray, " K"], Bool[np.ndarray, " A"]]]:
        """Yields each fold, the rows that a probe is fitted to, and which rows validate it."""
        for fold in range(FOLDS):
            splits = np.array([split_of(group, fold) for group in self.groups])
            train = np.flatnonzero(splits == TRAIN)
            for draw in range(self.draws if self.shots else 1):
                known = train
                if self.shots:
                    known = train[few_of_each(self.labels[train], self.classes, self.shots, draw)]
                yield fold, known, splits == VALIDATION


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The results of a probe.

    Attributes:
      right: share of right answers to each row when it is tested, over seeds and draws.
      strengths: strength of the ridge for each fold.
      kinds: name of the kind of features for each fold; only where there was a choice.
    """

    right: Float[np.ndarray, " A"]
    strengths: tuple[float, ...]
    kinds: tuple[str, ...] = ()

    def told(self) -> dict[str, Sequence[Any]]:
        """Returns what was chosen, for JSON."""
        return {"features": self.kinds, "strengths": self.strengths}


def ridge(features: Sequence[Float[np.ndarray, "A D"]], data: Labelled) -> Outcome:
    """Fits ridge regressions and tests every row in its fold.

    ``choosing.choose`` chooses one strength per fold for all seeds; of equally good strengths it
    takes the largest.

    Args:
      features: features of all rows, one matrix per seed.
      data: labels and groups of the rows.
    """
    return dataclasses.replace(best_ridge({"": features}, data), kinds=())


def best_ridge(kinds: Mapping[str, Sequence[Float[np.ndarray, "A D"]]], data: Labelled) -> Outcome:
    """Does the same with several kinds of features; each fold has one kind and one strength.

    Both are chosen together, on rows that the fold does not test. Of equally good choices, the last
    kind is taken, and of its strengths the largest.

    Args:
      kinds: features of all rows by kind, one matrix per seed.
      data: labels and groups of the rows.
    """
    tried = [_tried(features, data) for features in kinds.values()]
    times = tried[0][1]
    checked, tested = (np.concatenate([each[part] for each in tried]) for part in (0, 2))
    chosen = choose(checked, times, tested, data.groups)
    settings = [(kind, strength) for kind in kinds for strength in STRENGTHS]
    names, strengths = zip(*(settings[each] for each in chosen.settings), strict=True)
    return Outcome(chosen.right, strengths, names)


def _tried(
    features: Sequence[Float[np.ndarray, "A D"]], data: Labelled
) -> tuple[Float[np.ndarray, "S A"], Float[np.ndarray, " A"], Float[np.ndarray, "S A"]]:
    """Returns ``checked``, ``times`` and ``tested`` of ``choosing.choose``, for all strengths."""
    rows, folds = len(data.labels), data.folds
    tested = np.zeros((len(STRENGTHS), rows))
    checked, times = np.zeros((len(STRENGTHS), rows)), np.zeros(rows)
    for matrix in features:
        for fold, known, validation in data.parts():
            fitted = Ridge.fit(matrix[known], data.labels[known], data.classes)
            test = folds == fold
            times += validation
            for number, strength in enumerate(STRENGTHS):
                right = fitted.scores(matrix, strength).argmax(axis=1) == data.labels
                checked[number] += right & validation
                tested[number] += right & test
    return checked, times, tested / (len(features) * (data.draws if data.shots else 1))


def majority(data: Labelled) -> Float[np.ndarray, " A"]:
    """Returns whether each row has the most frequent class of the training part of its fold."""
    right = np.zeros(len(data.labels))
    for fold, known, _ in data.parts():
        # If all classes have equally many rows, any is the most frequent; this takes the first.
        common = np.bincount(data.labels[known]).argmax()
        right += (data.labels == common) & (data.folds == fold)
    return right / (data.draws if data.shots else 1)


def nearest(
    features: Float[np.ndarray, "A D"], data: Labelled, neighbours: int = 1
) -> Float[np.ndarray, " A"]:
    """Returns how often each row has the class of its nearest training rows, over the draws.

    Args:
      features: of all rows; distances are Euclidean.
      data: labels and groups of the rows.
      neighbours: number of rows that vote.
    """
    right = np.zeros(len(data.labels))
    for fold, known, _ in data.parts():
        test = np.flatnonzero(data.folds == fold)
        found = nearest_neighbours(
            features[known], data.labels[known], features[test], [neighbours]
        )
        right[test] += found[neighbours] == data.labels[test]
    return right / (data.draws if data.shots else 1)
