"""Accuracy and consistency: NLVR2's golden values, ties, and intervals over groups."""

import numpy as np
import pytest

from vlbeit_jax.data.identity import statement_name
from vlbeit_jax.metrics.reasoning import Judged, is_correct

# Identifiers and what the official evaluator makes of these judgements: .6 and 1/3.
IDENTIFIERS = ("dev-1-0-0", "dev-1-1-0", "dev-1-2-1", "dev-2-0-0", "dev-2-1-0")
RIGHT, ACCURACY, CONSISTENCY = (1, 1, 0, 1, 0), 0.6, 1 / 3


def judged(right, statement, truth=None):
    right = np.array(right, bool)
    truth = np.zeros(len(right), np.int64) if truth is None else np.array(truth)
    number = np.unique(statement, return_inverse=True)[1].astype(np.int64)
    return Judged(right, truth, number, np.zeros(len(right)))


def names(identifiers):
    """As prepare names them: a sentence's number is a text of its own within its set."""
    parts = [each.split("-") for each in identifiers]
    return [statement_name(f"sentence {p[3]}", f"{p[0]}-{p[1]}") for p in parts]


def test_golden_values_of_the_official_evaluator():
    found = judged(RIGHT, names(IDENTIFIERS)).summary()
    assert found["accuracy"] == pytest.approx(ACCURACY)
    assert found["consistency"] == pytest.approx(CONSISTENCY)
    assert found["statements"] == 3 and found["count"] == 5
    assert found["consistency_chance"] == pytest.approx((0.25 + 0.5 + 0.25) / 3)
    # The control: without sets, sentences 0 of both sets would be one statement.
    merged = [statement_name(f"sentence {each[-1]}", "") for each in IDENTIFIERS]
    assert judged(RIGHT, merged).summary()["consistency"] == 0


def test_equal_texts_are_one_statement_whatever_their_case():
    assert statement_name("Two  dogs", "a") == statement_name("two dogs", "a")
    assert statement_name("two dogs", "a") != statement_name("two dogs", "b")


def test_the_majority_is_the_better_constant_answer():
    assert judged([1, 0, 1], list("abc"), [1, 1, 0]).summary()["majority"] == pytest.approx(2 / 3)
    assert judged([1, 0, 1], list("abc"), [0, 0, 1]).summary()["majority"] == pytest.approx(2 / 3)


def test_a_tie_is_wrong_for_both_truths():
    logits = np.float32([[1, 1], [1, 1], [0, 2], [0, 2], [np.nan, 1]])
    found = is_correct(logits, np.array([0, 1, 1, 0, 1]))
    assert found.tolist() == [False, False, True, False, False]


def test_intervals_draw_groups_and_hold_their_values():
    rng = np.random.default_rng(0)
    statement = np.repeat(np.arange(100), 4)
    found = judged(rng.uniform(size=400) < 0.8, statement)
    apart = found.intervals(np.arange(400))
    groups = np.repeat(np.arange(10), 40)
    for name, wide in found.intervals(groups).items():
        assert wide.value == found.summary()[name] == apart[name].value
        assert wide.low < wide.value < wide.high
    # Ten groups that are each all right or all wrong say less than 400 rows do.
    clustered = judged(groups % 2 == 0, statement)
    low, high = clustered.intervals(groups)["accuracy"][1:]
    other_low, other_high = clustered.intervals(np.arange(400))["accuracy"][1:]
    assert high - low > 3 * (other_high - other_low)
