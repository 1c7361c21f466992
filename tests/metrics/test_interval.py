"""Intervals over groups: they hold the truth, and rows of one group are no new evidence."""

import time

import numpy as np
import pytest

from vlbeit_jax.metrics.interval import RESAMPLES, mean_by_group, paired_gain, ratio_interval

GROUPS = 60


def answers(seed, truth=0.1):
    """Right or wrong of two models, on groups of very different sizes that answer alike."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(GROUPS), rng.integers(1, 9, GROUPS))
    other = rng.random(GROUPS)[group] < 0.5
    better = rng.random(GROUPS)[group] < 2 * truth  # Of the groups, half of which were wrong.
    return np.where(better, True, other).astype(float), other.astype(float), group


def slowly(own, other, groups, each_group_once):
    names = sorted(set(groups.tolist()))
    if each_group_once:
        return sum(
            sum(own[i] - other[i] for i in range(len(own)) if groups[i] == name)
            / sum(groups[i] == name for i in range(len(own)))
            for name in names
        ) / len(names)
    return sum(own[i] - other[i] for i in range(len(own))) / len(own)


@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_the_gain_is_as_stated_slowly(once, seed):
    own, other, groups = answers(seed)
    found = paired_gain(own, other, groups, each_group_once=once)
    assert found.value == pytest.approx(slowly(own, other, groups, once), abs=1e-12)
    assert found.value == pytest.approx(
        mean_by_group(own, groups, each_group_once=once)
        - mean_by_group(other, groups, each_group_once=once),
        abs=1e-12,
    )
    names = np.array([f"group {number}" for number in groups])  # Names do as well as numbers.
    named = paired_gain(own, other, names, each_group_once=once)
    assert named.value == pytest.approx(found.value, abs=1e-12)


def test_rows_and_groups_are_weighed_differently():
    own, other, groups = np.array([1.0, 1, 1, 0]), np.zeros(4), np.array([0, 0, 0, 1])
    assert paired_gain(own, other, groups, each_group_once=True).value == 0.5
    assert paired_gain(own, other, groups, each_group_once=False).value == 0.75


@pytest.mark.parametrize("once", [True, False])
def test_the_interval_holds_the_truth_19_times_out_of_20(once):
    hits = 0
    for seed in range(100):
        found = paired_gain(*answers(seed), each_group_once=once)
        hits += found.low <= 0.1 <= found.high
    assert 86 <= hits <= 100


def test_rows_of_one_group_are_no_new_evidence():
    """The control: were every row its own group, the interval would be too narrow."""
    own, other, groups = answers(0)
    right = paired_gain(own, other, groups, each_group_once=False)
    wrong = paired_gain(own, other, np.arange(len(own)), each_group_once=False)
    assert wrong.high - wrong.low < 0.7 * (right.high - right.low)


def test_one_unit_gives_a_point_and_none_gives_zero():
    assert ratio_interval(np.array([3.0]), np.array([4.0])) == (0.75,) * 3
    assert ratio_interval(np.zeros(0), np.zeros(0)) == (0, 0, 0)


@pytest.fixture
def many():
    """Totals and weights of as many units as a validation set has."""
    rng = np.random.default_rng(0)
    weights = rng.integers(1, 9, 20_000)
    return rng.binomial(weights, 0.3).astype(float), weights.astype(float)


def test_bounds_are_those_of_scipy(many):
    from scipy.stats import bootstrap

    def ratio(totals, weights, axis=-1):
        return totals.sum(axis) / weights.sum(axis)

    totals, weights = (each[:500] for each in many)
    found = bootstrap(
        (totals, weights),
        ratio,
        paired=True,
        n_resamples=RESAMPLES,
        batch=100,
        method="percentile",
        rng=np.random.default_rng(3),
    ).confidence_interval
    bounds = pytest.approx((found.low, found.high), rel=1e-12)
    assert ratio_interval(totals, weights, seed=3)[1:] == bounds


def test_no_other_thread_works(many):
    """Threads of BLAS make a busy machine slow: they wait for each other."""
    before = time.process_time() - time.thread_time()
    ratio_interval(*many)
    own = time.thread_time()
    ratio_interval(*many)
    own = time.thread_time() - own
    assert time.process_time() - time.thread_time() - before < own
