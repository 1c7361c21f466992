"""Intervals by the bootstrap, over groups of rows that are not independent of each other.

NumPy only. ``scipy.stats.bootstrap`` gives the same bounds from the same seed, to rounding. But it
refuses a single unit, takes 1.2 seconds to import, and either the memory of many resamples at once
or a second for one after the other.
"""

from typing import NamedTuple

import numpy as np

from vlbeit_jax.shapes import Float

RESAMPLES = 2000


class Interval(NamedTuple):
    """A value and the bounds of its 95% interval."""

    value: float
    low: float
    high: float


def ratio_interval(
    totals: Float[np.ndarray, " A"], weights: Float[np.ndarray, " A"], seed: int = 0
) -> Interval:
    """Returns the sum of totals over the sum of weights; 0 where the weights are 0.

    The interval is the bootstrap's 2.5% to 97.5%: whole units are drawn, with their totals and
    weights.

    Args:
      totals: of each unit, such as a record with all masks that were drawn for it.
      weights: of each unit, such as the number of its masked positions.
      seed: of the bootstrap.
    """
    rng, units = np.random.default_rng(seed), len(weights)
    drawn = np.empty(RESAMPLES)
    for index in range(RESAMPLES):
        chosen = rng.integers(0, units, units)
        # Sums and no products of vectors. For those, BLAS would start threads, which wait for each
        # other if the processor is busy: 5 to 20 seconds instead of 0.4 for 20,000 units.
        drawn[index] = totals[chosen].sum() / max(weights[chosen].sum(), 1.0)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(float(totals.sum() / max(weights.sum(), 1.0)), float(low), float(high))


def mean_interval(values: Float[np.ndarray, " A"], groups: np.ndarray, seed: int = 0) -> Interval:
    """Returns the mean over rows; rows of one group are drawn together.

    Otherwise the interval would be too narrow, because near-duplicates, or the questions about one
    picture, are not independent of each other.

    Args:
      values: of each row, such as 1 for a right answer.
      groups: name or number of each row's group.
      seed: of the bootstrap.
    """
    _, group = np.unique(groups, return_inverse=True)
    return ratio_interval(np.bincount(group, values), np.bincount(group).astype(float), seed)


def paired_gain(
    own: Float[np.ndarray, " A"],
    other: Float[np.ndarray, " A"],
    groups: np.ndarray,
    *,
    each_group_once: bool,
    seed: int = 0,
) -> Interval:
    """Returns the mean of ``own`` minus that of ``other`` over the same rows, by group.

    Rows of one group are drawn together, as in ``mean_interval``.

    Args:
      own: score of each row, such as 1 for a right answer.
      other: of the same rows in the same order, by what it is compared with.
      groups: name or number of each row's group.
      each_group_once: whether each group counts once, however many rows it has, instead of each
        row. Thirty pictures of families then weigh as much as one picture of a bus.
      seed: of the bootstrap.
    """
    if not each_group_once:
        return mean_interval(own - other, groups, seed)
    _, group = np.unique(groups, return_inverse=True)
    means = np.bincount(group, own - other) / np.bincount(group)
    return ratio_interval(means, np.ones_like(means), seed)


def mean_by_group(
    values: Float[np.ndarray, " A"], groups: np.ndarray, *, each_group_once: bool
) -> float:
    """Returns the mean over rows, or over groups of their rows' mean; as in ``paired_gain``."""
    _, group = np.unique(groups, return_inverse=True)
    if not each_group_once:
        return float(np.mean(values))
    return float(np.mean(np.bincount(group, values) / np.bincount(group)))
