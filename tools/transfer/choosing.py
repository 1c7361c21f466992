"""Chooses a setting for each fold by scores on rows that the fold does not test."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tools.emoji.folds import FOLDS, fold_of
from vlbeit_jax.metrics.interval import mean_by_group
from vlbeit_jax.shapes import Float, Int


class Chosen(NamedTuple):
    """The chosen settings and their results.

    Attributes:
      right: figures of each row, from the setting that was chosen for its fold.
      settings: number of the setting that was chosen for each fold.
      validation: accuracy by group of each setting, on the validation rows of all folds.
    """

    right: Float[np.ndarray, " A *K"]
    settings: tuple[int, ...]
    validation: tuple[float, ...]

    def told(self, values: Sequence[float]) -> dict[str, Any]:
        """Returns for JSON the validation accuracy of each value, and the chosen values."""
        return {
            "validation": dict(zip(map(str, values), self.validation, strict=True)),
            "chosen": [values[number] for number in self.settings],
        }


def folds_of(groups: np.ndarray) -> Int[np.ndarray, " A"]:
    """Returns the fold that tests each row."""
    return np.array([fold_of(group) for group in groups])


def choose(
    checked: Float[np.ndarray, "S A"],
    times: Float[np.ndarray, " A"],
    tested: Float[np.ndarray, "S A *K"],
    groups: np.ndarray,
) -> Chosen:
    """Chooses a setting for each fold, and returns its figures in that fold.

    The setting for a fold is the one with the best accuracy by group on the validation rows of all
    folds together, without the rows that this fold tests. A single validation part (about 140 rows)
    is too small to tell settings apart. Of equally good settings, the last one is chosen.

    Args:
      checked: number of right answers of each setting to each row, over all folds in which the row
        is for validation.
      times: number of answers to each row in these folds; the same for all settings.
      tested: figures of each setting for each row, in the fold that tests the row.
      groups: name of each row's group.
    """
    folds = folds_of(groups)
    accuracy = [_accuracies(checked, times * (folds != fold), groups) for fold in range(FOLDS)]
    chosen = [len(each) - 1 - int(np.argmax(each[::-1])) for each in accuracy]
    right = tested[np.array(chosen)[folds], np.arange(len(folds))]
    return Chosen(right, tuple(chosen), tuple(_accuracies(checked, times, groups)))


def _accuracies(
    checked: Float[np.ndarray, "S A"], times: Float[np.ndarray, " A"], groups: np.ndarray
) -> list[float]:
    rows = times > 0
    return [
        mean_by_group(each[rows] / times[rows], groups[rows], each_group_once=True)
        for each in checked
    ]
