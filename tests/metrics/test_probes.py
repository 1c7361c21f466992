"""Probes against slow statements of what they compute, in float64."""

import numpy as np
import pytest

from vlbeit_jax.metrics.probes import Ridge, few_of_each, nearest_neighbours, unit_rows


def rows(seed, count, width, classes=4, apart=1.0):
    """Features of random scale and place, and classes that they tell more or less."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    centres = rng.normal(size=(classes, width)) * apart
    features = centres[labels] + rng.normal(size=(count, width))
    return features * rng.uniform(0.01, 50, width) + rng.normal(size=width) * 9, labels


def ridge_slowly(features, labels, queries, classes, strength):
    """One class after the other: minimise the squared error plus the ridge, by its gradient."""
    mean, deviation = features.mean(0), np.sqrt(((features - features.mean(0)) ** 2).mean(0)) + 1e-5
    known = np.array([[*((row - mean) / deviation), 100.0] for row in features])
    new = np.array([[*((row - mean) / deviation), 100.0] for row in queries])
    scores = []
    for each in range(classes):
        target = np.array([1.0 if label == each else -1.0 for label in labels])
        # The gradient, 2 X'(Xw - y) + 2 s w, is zero at the solution of a stacked least squares.
        stacked = np.concatenate([known, np.sqrt(strength) * np.eye(known.shape[1])])
        padded = np.concatenate([target, np.zeros(known.shape[1])])
        weights = np.linalg.lstsq(stacked, padded, rcond=None)[0]
        gradient = known.T @ (known @ weights - target) + strength * weights
        assert np.abs(gradient).max() < 1e-6 * np.abs(known.T @ target).max()
        scores.append(new @ weights)
    return np.stack(scores, axis=1)


@pytest.mark.parametrize("strength", [1e-3, 1.0, 1024.0])
@pytest.mark.parametrize(("count", "width"), [(60, 7), (12, 30)])  # Either Gram matrix.
def test_ridge_is_as_stated_slowly(count, width, strength):
    features, labels = rows(count, count, width)
    queries = rows(1, 20, width)[0]
    found = Ridge.fit(features, labels, 4).scores(queries, strength)
    assert found == pytest.approx(ridge_slowly(features, labels, queries, 4, strength), abs=1e-6)


def test_ridge_minds_the_scale_of_no_feature_and_a_constant_one_does_no_harm():
    features, labels = rows(0, 80, 6)
    queries = rows(1, 30, 6)[0]
    plain = Ridge.fit(features, labels, 4).scores(queries, 8.0)
    scaled = Ridge.fit(features * 64 + 3, labels, 4).scores(queries * 64 + 3, 8.0)
    assert scaled == pytest.approx(plain, abs=1e-3)  # The 1e-5 in the deviation is left.
    extended = [
        np.concatenate([each, np.full((len(each), 1), 5.0)], 1) for each in (features, queries)
    ]
    assert Ridge.fit(extended[0], labels, 4).scores(extended[1], 8.0) == pytest.approx(plain)


def test_ridge_learns_what_there_is_and_nothing_else():
    features, labels = rows(3, 900, 8, apart=2.0)
    known, new = slice(0, 300), slice(300, None)

    def accuracy(given):
        scores = Ridge.fit(features[known], given[known], 4).scores(features[new], 1.0)
        return np.mean(scores.argmax(1) == labels[new])

    assert accuracy(labels) > 0.9
    assert accuracy(np.random.default_rng(0).permutation(labels)) < 0.45  # The control.


def test_few_of_each_class():
    labels = np.random.default_rng(0).integers(0, 3, 200)
    labels[labels == 2] = 3  # Class 2 has no row, class 4 has two.
    labels[:2] = 4
    found = few_of_each(labels, 5, 10, seed=1)
    assert np.bincount(labels[found], minlength=5).tolist() == [10, 10, 0, 10, 2]
    assert len(set(found.tolist())) == len(found)
    assert np.array_equal(found, few_of_each(labels, 5, 10, seed=1))
    assert not np.array_equal(found, few_of_each(labels, 5, 10, seed=2))
    # Fewer labels are part of more: the first permutations are the same.
    assert set(few_of_each(labels, 5, 4, seed=1)[:4]) <= set(found)


def neighbours_slowly(features, labels, query, count):
    """By sorting pairs, and counting the votes of each class."""
    near = sorted(
        range(len(features)), key=lambda i: (float(((features[i] - query) ** 2).sum()), i)
    )
    votes = [labels[i] for i in near[:count]]
    best = max(votes.count(each) for each in votes)
    return next(each for each in votes if votes.count(each) == best)


@pytest.mark.parametrize("unit", [True, False])
def test_nearest_neighbours_are_as_stated_slowly(unit):
    features, labels = rows(0, 90, 5)
    queries = rows(1, 40, 5)[0]
    if unit:
        features, queries = unit_rows(features), unit_rows(queries)
        assert np.linalg.norm(features, axis=1) == pytest.approx(np.ones(90))
    found = nearest_neighbours(features, labels, queries, (1, 2, 5, 20))
    for count, classes in found.items():
        wanted = [neighbours_slowly(features, labels, query, count) for query in queries]
        assert classes.tolist() == wanted
    assert len({tuple(classes) for classes in found.values()}) > 2  # The numbers matter.


def test_of_equal_votes_the_nearer_wins():
    features, labels = np.array([[0.0], [1.0], [2.0], [3.0]]), np.array([7, 4, 4, 7])
    query = np.array([[1.4]])
    assert nearest_neighbours(features, labels, query, (1, 2, 4)) == {1: [4], 2: [4], 4: [4]}
    assert nearest_neighbours(features, labels, np.array([[-1.0]]), (4,)) == {4: [7]}


def test_a_row_of_zeros_stays_zero():
    assert np.array_equal(unit_rows(np.zeros((1, 3))), np.zeros((1, 3)))
