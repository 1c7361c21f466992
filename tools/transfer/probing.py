"""Probes over three folds: every picture is tested once, and no strength is chosen on its test."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from tools.emoji.folds import FOLDS, fold_of, split_of
from vlbeit_jax.data.identity import TRAIN, VALIDATION
from vlbeit_jax.metrics.interval import mean_by_group
from vlbeit_jax.metrics.probes import Ridge, few_of_each, nearest_neighbours
from vlbeit_jax.shapes import Bool, Float, Int

STRENGTHS = tuple(4.0**power for power in range(-9, 7))


@dataclasses.dataclass(frozen=True)
class Labelled:
    """What is known of each row besides its features.

    Attributes:
      labels: class of each row.
      groups: name of each row's group.
      classes: number of classes.
      shots: labelled rows of each class that a probe may see; 0: all of the training part.
      draws: how often these are drawn anew.
    """

    labels: Int[np.ndarray, " A"]
    groups: np.ndarray
    classes: int
    shots: int = 0
    draws: int = 1

    @property
    def folds(self) -> Int[np.ndarray, " A"]:
        """The fold that tests each row."""
        return np.array([fold_of(group) for group in self.groups])

    def parts(self) -> Iterator[tuple[int, Int[np.ndarray, " K"], Bool[np.ndarray, " A"]]]:
        """Yields each fold with the rows that a probe is fitted to, and those of validation."""
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
    """What a probe gave.

    Attributes:
      right: share of right answers to each row in its test, over seeds and draws.
      strengths: of the ridge, by fold.
    """

    right: Float[np.ndarray, " A"]
    strengths: tuple[float, ...]


def ridge(features: Sequence[Float[np.ndarray, "A D"]], data: Labelled) -> Outcome:
    """Fits ridge regressions and tests every row in its fold.

    The strength for a fold is the one with the best accuracy by group on the validation rows of
    all three probes together, without the rows that this fold tests. One strength serves all seeds.
    A single validation part (about 140 rows) is too small to tell strengths apart.

    Args:
      features: of all rows, one matrix per seed.
      data: labels and groups.
    """
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
    chosen = [_best(checked, times * (folds != fold), data.groups) for fold in range(FOLDS)]
    right = tested[np.array(chosen)[folds], np.arange(rows)]
    right /= len(features) * (data.draws if data.shots else 1)
    return Outcome(right, tuple(STRENGTHS[each] for each in chosen))


def _best(
    checked: Float[np.ndarray, "S A"], times: Float[np.ndarray, " A"], groups: np.ndarray
) -> int:
    """Returns the number of the strength with the best accuracy; of equals the strongest."""
    rows = times > 0
    accuracy = [
        mean_by_group(each[rows] / times[rows], groups[rows], each_group_once=True)
        for each in checked
    ]
    return len(accuracy) - 1 - int(np.argmax(accuracy[::-1]))


def majority(data: Labelled) -> Float[np.ndarray, " A"]:
    """Returns whether each row has the commonest class of its training part."""
    right = np.zeros(len(data.labels))
    for fold, known, _ in data.parts():
        # With equally many rows of all classes, any class is the commonest.
        common = np.bincount(data.labels[known]).argmax()
        right += (data.labels == common) & (data.folds == fold)
    return right / (data.draws if data.shots else 1)


def nearest(features: Float[np.ndarray, "A D"], data: Labelled) -> Float[np.ndarray, " A"]:
    """Returns how often each row has the class of its nearest training row."""
    right = np.zeros(len(data.labels))
    for fold, known, _ in data.parts():
        test = np.flatnonzero(data.folds == fold)
        found = nearest_neighbours(features[known], data.labels[known], features[test], [1])
        right[test] += found[1] == data.labels[test]
    return right / (data.draws if data.shots else 1)
