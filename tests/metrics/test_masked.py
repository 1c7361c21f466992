"""Accuracy, its baselines, and a gain whose interval can be trusted."""

import dataclasses

import numpy as np
import pytest

from vlbeit_jax.metrics.masked import Scores, gain

COUNT = 7  # masked positions of an example


def scores(uid, right, weight=None, loss=None, targets=None):
    uid, right = np.asarray(uid), np.asarray(right, float)
    weight = np.full(len(uid), float(COUNT)) if weight is None else np.asarray(weight, float)
    loss = np.zeros(len(uid)) if loss is None else np.asarray(loss, float)
    return Scores(
        uid=uid,
        correct=right,
        loss=loss,
        weight=weight,
        targets=np.ones(10) if targets is None else np.asarray(targets, float),
    )


def synthetic(seed, records=80, draws=4, truth=0.05):
    """Scores with own and with wrong partners.

    All draws of a record share its difficulty, so they are far from independent.
    """
    rng = np.random.default_rng(seed)
    uid = rng.permutation(np.repeat(rng.choice(2**32, records, replace=False), draws))
    _, record = np.unique(uid, return_inverse=True)
    weight = rng.integers(0, COUNT + 1, len(uid))
    # The right partner helps some records, at half of their positions.
    helped = rng.random(records)[record] < 2 * truth
    right = rng.binomial(weight, 0.3)
    better = np.where(helped, rng.binomial(weight - right, 0.5 / 0.7), 0)
    return scores(uid, right + better, weight), scores(uid, right, weight)


def slow_gain(own, other, rng, resamples):
    """One record after the other, resampled with all its draws."""
    by_record = {}
    for uid, one, two, weight in zip(
        own.uid.tolist(), own.correct, other.correct, own.weight, strict=True
    ):
        difference, total = by_record.get(uid, (0, 0))
        by_record[uid] = difference + one - two, total + weight
    pairs = np.array(list(by_record.values()))
    drawn = [pairs[rng.choice(len(pairs), len(pairs))].sum(axis=0) for _ in range(resamples)]
    return pairs[:, 0].sum() / pairs[:, 1].sum(), [
        difference / total for difference, total in drawn
    ]


@pytest.mark.parametrize("seed", range(3))
def test_the_gain_is_as_stated_slowly(seed):
    own, other = synthetic(seed)
    found = gain(own, other)
    value, drawn = slow_gain(own, other, np.random.default_rng(99), 4000)
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert found.value == pytest.approx(value, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.08 * (high - low))
    assert gain(own, other) == found and gain(own, other, seed=1) != found
    negative = gain(other, own)
    assert negative.value == -found.value and negative.high == pytest.approx(-found.low)


def test_the_interval_holds_the_truth_19_times_out_of_20():
    hits = 0
    for seed in range(100):
        found = gain(*synthetic(seed, records=300))
        assert found.low <= found.value <= found.high
        hits += found.low <= 0.05 <= found.high
    assert 88 <= hits <= 100


def test_the_truth_of_the_synthetic_scores():
    own, other = synthetic(0, records=100_000, draws=1)
    assert (own.correct.sum() - other.correct.sum()) / own.weight.sum() == pytest.approx(
        0.05, abs=0.002
    )


def test_no_help_is_no_gain_and_all_help_is_one():
    own, _ = synthetic(0)
    assert gain(own, own) == (0, 0, 0)
    whole, none = (
        scores(own.uid, own.weight, own.weight),
        scores(own.uid, np.zeros_like(own.weight), own.weight),
    )
    assert gain(whole, none) == (1, 1, 1)


def test_draws_of_one_record_go_together():
    """Writing every draw twice adds no evidence; as new records it would."""
    own, other = synthetic(1)
    twice = [
        dataclasses.replace(
            each, **{k: np.tile(getattr(each, k), 2) for k in ("uid", "correct", "loss", "weight")}
        )
        for each in (own, other)
    ]
    assert gain(*twice) == pytest.approx(gain(own, other))
    fresh = [dataclasses.replace(each, uid=np.arange(len(each.uid))) for each in twice]
    narrow, wide = gain(*fresh), gain(*twice)
    assert narrow.value == pytest.approx(wide.value) and narrow.high - narrow.low < 0.8 * (
        wide.high - wide.low
    )


def test_the_same_positions_are_compared():
    own, other = synthetic(2)
    for changed in ({"uid": own.uid[::-1]}, {"weight": own.weight + 1}):
        with pytest.raises(AssertionError):
            gain(own, dataclasses.replace(other, **changed))


def test_the_summary_in_numbers():
    found = scores(
        [1, 2, 3], [2, 0, 3], weight=[4, 1, 5], loss=[8, 3, 9], targets=[5, 0, 2, 3]
    ).summary()
    assert found == {"accuracy": 0.5, "chance": 0.25, "unigram": 0.5, "loss": 2.0, "count": 10}
    assert {name: type(value) for name, value in found.items()} == dict.fromkeys(
        ("accuracy", "chance", "unigram", "loss"), float
    ) | {"count": int}


def test_no_blind_answer_beats_the_unigram():
    rng = np.random.default_rng(0)
    targets = rng.choice(6, 700, p=[0.3, 0.25, 0.2, 0.15, 0.1, 0])
    counts = np.bincount(targets, minlength=6)
    found = scores(np.arange(100), np.zeros(100), targets=counts).summary()
    assert (
        found["unigram"] == max(np.mean(targets == answer) for answer in range(6))
        and found["chance"] == 1 / 6
    )


@pytest.mark.parametrize("examples", [0, 3])
def test_nothing_masked_is_zero_and_finite(examples):
    nothing = scores(
        np.arange(examples), np.zeros(examples), weight=np.zeros(examples), targets=np.zeros(4)
    )
    assert nothing.summary() == {"accuracy": 0, "chance": 0.25, "unigram": 0, "loss": 0, "count": 0}
    assert gain(nothing, nothing) == (0, 0, 0)


def test_one_record_gives_a_point():
    own, other = scores([5, 5], [3, 4]), scores([5, 5], [1, 0])
    assert gain(own, other) == (6 / 14,) * 3
