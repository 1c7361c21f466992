"""The study's probes: every row tested once, nothing chosen on a test, controls at chance."""

import dataclasses

import numpy as np
import pytest

from tools.emoji.folds import FOLDS, fold_of, split_of
from tools.transfer import probing
from tools.transfer.results import comparison, table
from vlbeit_jax.data.identity import TEST, TRAIN, VALIDATION
from vlbeit_jax.metrics.probes import Ridge

ROWS, CLASSES = 360, 3


@pytest.fixture(scope="module")
def world():
    """Features that tell the class of most rows, in groups of one to three rows."""
    rng = np.random.default_rng(0)
    groups = np.array(
        [
            f"group {number}"
            for number in np.repeat(np.arange(ROWS), rng.integers(1, 4, ROWS))[:ROWS]
        ]
    )
    labels = rng.integers(0, CLASSES, ROWS)
    features = rng.normal(size=(CLASSES, 6))[labels] * 1.5 + rng.normal(size=(ROWS, 6))
    return features, probing.Labelled(labels, groups, CLASSES)


def test_ridge_is_as_stated_slowly(world):
    """Fit on train, choose on the validation rows outside the fold, answer the fold."""
    features, data = world
    found = probing.ridge([features], data)
    groups, labels = data.groups, data.labels
    for fold in range(FOLDS):
        best = {}
        for strength in probing.STRENGTHS:
            right: dict[str, dict[int, list[float]]] = {}
            for other in range(FOLDS):
                known = [i for i in range(ROWS) if split_of(groups[i], other) == TRAIN]
                scores = Ridge.fit(features[known], labels[known], CLASSES).scores(
                    features, strength
                )
                for i in range(ROWS):
                    if split_of(groups[i], other) == VALIDATION and fold_of(groups[i]) != fold:
                        hit = float(scores[i].argmax() == labels[i])
                        right.setdefault(groups[i], {}).setdefault(i, []).append(hit)
            means = [np.mean([np.mean(hits) for hits in rows.values()]) for rows in right.values()]
            best[strength] = round(float(np.mean(means)), 12)
        chosen = max(s for s, value in best.items() if value == max(best.values()))
        assert found.strengths[fold] == chosen
        known = [i for i in range(ROWS) if split_of(groups[i], fold) == TRAIN]
        scores = Ridge.fit(features[known], labels[known], CLASSES).scores(features, chosen)
        for i in range(ROWS):
            if split_of(groups[i], fold) == TEST:
                assert found.right[i] == (scores[i].argmax() == labels[i])


def test_each_fold_has_the_kind_of_features_that_validation_prefers(world):
    features, data = world
    noise = np.random.default_rng(5).normal(size=features.shape)
    alone = probing.ridge([features], data)
    for kinds in ({"noise": [noise], "good": [features]}, {"good": [features], "noise": [noise]}):
        found = probing.best_ridge(kinds, data)
        assert found.kinds == ("good",) * FOLDS and np.array_equal(found.right, alone.right)
        assert found.told() == {"features": found.kinds, "strengths": alone.strengths}
    # Of equal kinds, the last one.
    assert probing.best_ridge({"a": [features], "b": [features]}, data).kinds == ("b",) * FOLDS


def test_no_answer_depends_on_the_labels_of_its_fold(world):
    """With other labels in one fold, the answers of that fold stay what they were.

    Two classes are exchanged there. So a row was answered rightly before, or is now, or never.
    """
    features, data = world
    swapped = np.array([1, 0, 2])[data.labels]
    labels = np.where(data.folds == 1, swapped, data.labels)
    before, after = (
        probing.ridge([features], dataclasses.replace(data, labels=each)).right > 0
        for each in (data.labels, labels)
    )
    moved = (data.folds == 1) & (data.labels < 2)
    assert before[moved].mean() > 0.7 and not (before & after)[moved].any()
    kept = (data.folds == 1) & (data.labels == 2)
    assert np.array_equal(before[kept], after[kept])


def test_permuted_labels_give_chance(world):
    features, data = world
    assert probing.ridge([features], data).right.mean() > 0.7
    labels = np.random.default_rng(1).permutation(data.labels)
    permuted = probing.ridge([features], dataclasses.replace(data, labels=labels))
    assert permuted.right.mean() < 0.45


def test_seeds_and_draws_are_averaged(world):
    features, data = world
    noise = np.random.default_rng(2).normal(size=features.shape)
    both = probing.ridge([features, noise], data)
    assert set(np.unique(both.right)) <= {0.0, 0.5, 1.0}
    few = dataclasses.replace(data, shots=4, draws=3)
    assert sum(1 for _ in few.parts()) == 3 * FOLDS
    assert all(len(known) == 4 * CLASSES for _, known, _ in few.parts())
    found = probing.ridge([features], few).right
    assert set(np.round(np.unique(found) * 3).astype(int)) <= {0, 1, 2, 3}
    assert 0.45 < found.mean() < probing.ridge([features], data).right.mean()


def test_floors(world):
    features, data = world
    common = np.array(
        [
            np.bincount(data.labels[[split_of(g, fold) == TRAIN for g in data.groups]]).argmax()
            for fold in range(FOLDS)
        ]
    )
    assert np.array_equal(probing.majority(data), data.labels == common[data.folds])
    near = probing.nearest(features, data)
    for i in (0, 100, 300):
        known = [j for j in range(ROWS) if split_of(data.groups[j], data.folds[i]) == TRAIN]
        distances = [((features[i] - features[j]) ** 2).sum() for j in known]
        assert near[i] == (data.labels[known[int(np.argmin(distances))]] == data.labels[i])


def test_the_form_of_transfer_json():
    groups = np.array(["a", "a", "b"])
    found = comparison(
        np.array([1.0, 1, 0]), np.array([1.0, 0, 0]), {"none": np.zeros(3)}, groups, 3
    )
    assert set(found) == {"accuracy_by_group", "accuracy_by_row"}
    by_group = found["accuracy_by_group"]
    assert by_group["pretrained"] == 0.5 and by_group["random"] == 0.25 and by_group["seeds"] == 3
    assert by_group["floors"] == {"none": 0} and by_group["gain"]["value"] == 0.25
    assert found["accuracy_by_row"]["pretrained"] == pytest.approx(2 / 3)
    assert by_group["gain"]["low"] <= 0.25 <= by_group["gain"]["high"]
    assert "| emoji | accuracy_by_group | 0.500 | 0.250 | +0.250 (" in table({"emoji": found})
