"""Accuracies against independent statements; ties count against the right answer."""

import numpy as np
import pytest

from vlbeit_jax.metrics.classification import Answers, negative_log_likelihood, ranks


def answers(logits, labels):
    logits, labels = np.asarray(logits, np.float32), np.asarray(labels)
    return Answers(ranks(logits, labels), labels, negative_log_likelihood(logits, labels))


def test_top_k_agrees_with_sorting():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(200, 12)), rng.integers(0, 12, 200)
    best = np.argsort(-logits, axis=1)
    summary = answers(logits, labels).summary(12)
    assert summary["accuracy"] == pytest.approx(np.mean(best[:, 0] == labels))
    assert summary["top5"] == pytest.approx(np.mean((best[:, :5] == labels[:, None]).any(axis=1)))
    losses = [
        -np.log(np.exp(row[label]) / np.exp(row).sum())
        for row, label in zip(logits, labels, strict=True)
    ]
    assert summary["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    counts = [np.sum(labels == c) for c in range(12)]
    assert summary["majority"] == max(counts) / 200 and summary["chance"] == 1 / 12
    by_class = [np.mean(best[labels == c, 0] == c) for c in range(12)]
    assert summary["mean_class"] == pytest.approx(np.mean(by_class)) and summary["count"] == 200


def test_ties_are_pessimistic():
    constant = answers(np.zeros((4, 6)), [0, 1, 2, 5])
    assert constant.summary(6)["accuracy"] == 0 and constant.summary(6)["top5"] == 0
    assert np.argmax(np.zeros(6)) == 0  # Control: argmax would be right once.
    assert list(ranks(np.array([[1.0, 2, 2, 0]]), np.array([1]))) == [1]
    assert list(ranks(np.array([[1.0, 2, 0, 0]]), np.array([1]))) == [0]
    assert list(ranks(np.array([[np.nan, 2, 0, 0]]), np.array([1]))) == [1]
    assert list(ranks(np.array([[1.0, np.nan, 0, 0]]), np.array([1]))) == [3]


def test_figures_by_class_leave_out_classes_without_records():
    found = answers(np.eye(3)[[0, 0, 1, 0]], [0, 0, 1, 1])
    assert found.by_name(("a", "b", "c")) == {
        "a": {"accuracy": 1.0, "count": 2},
        "b": {"accuracy": 0.5, "count": 2},
    }
    assert found.summary(3)["mean_class"] == 0.75 and "top5" not in found.summary(3)
    np.testing.assert_array_equal(found.per_class(3), [1, 0.5, np.nan])
