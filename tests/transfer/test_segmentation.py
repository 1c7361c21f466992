"""Scenes of emoji and their comparison: one confusion matrix, and rates chosen on validation."""

import numpy as np
import pytest

from tools.emoji import sets
from tools.emoji.folds import FOLDS
from tools.emoji.scenes import SIDE
from tools.transfer.by_folds import rows_tested
from tools.transfer.finetune import study_of
from tools.transfer.fit import Fit
from vlbeit_jax.data.examples.labelled import as_text
from vlbeit_jax.data.examples.segmented import mask_of
from vlbeit_jax.data.identity import TEST, VALIDATION
from vlbeit_jax.data.image import decode
from vlbeit_jax.data.source import open_set
from vlbeit_jax.metrics.segmentation import pixels_of, summary

GOOD = {"pretrained": 2e-2, "random": 1e-2}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The task, its folder and its sets, with few scenes in each part."""
    by_split = sets.by_split
    monkeypatch.setattr(
        sets,
        "by_split",
        lambda found, fold: {name: rows[:8] for name, rows in by_split(found, fold).items()},
    )
    task = study_of("segmentation")
    task.prepare(tmp_path)
    opened = [open_set(str(tmp_path / "sets" / str(fold))) for fold in range(FOLDS)]
    return task, tmp_path, opened


def test_scenes_have_a_class_for_each_pixel_and_their_background_is_plain(study):
    _, _, opened = study
    assert opened[0].meta["classes"][0] == "background" and len(opened[0].meta["classes"]) == 9
    records = opened[0].records(TEST)
    shares = []
    for number in range(len(records)):
        image, mask = decode(records[number]["image"]), mask_of(records[number])
        assert image.shape == (SIDE, SIDE, 3) and mask.shape == (SIDE, SIDE)
        assert 2 <= len(np.unique(mask)) <= 4 and mask.max() <= 8
        shares.append((mask == 0).mean())
        corner = image[mask == 0]
        common = np.median(corner, axis=0)
        assert (np.abs(corner - common).max(axis=1) < 3).mean() > 0.8
    assert 0.4 < np.mean(shares) < 0.9


def test_both_starts_are_compared_over_all_tested_pixels(study, monkeypatch):
    """The rate that is better on validation is chosen, although another one is better on test."""
    task, folder, opened = study
    rows = rows_tested(opened)
    names = dict(zip(rows.ids, rows.groups, strict=True))
    # The few tested scenes are those of validation, too; each is left out for one fold.
    monkeypatch.setattr(
        "tools.transfer.segmentation.folds_of", lambda groups: np.arange(len(groups)) % 3
    )
    rng, found = np.random.default_rng(0), {}
    right = {}
    for start, rates in task.rates.items():
        for rate in rates:
            for fold in range(FOLDS):
                answers = {VALIDATION: {}, TEST: {}}
                records = opened[fold].records(TEST)
                for number in range(len(records)):
                    mask, name = mask_of(records[number]), as_text(records[number]["id"])
                    good = rate == GOOD[start]
                    for split, share in ((TEST, 0.5), (VALIDATION, 0.1 if good else 0.6)):
                        wrong = rng.random(mask.shape) < share
                        given = np.where(wrong, (mask + 1) % 9, mask).astype(np.uint8)
                        found_here = pixels_of([mask], [given], 9)
                        answers[split][name] = [part[0].tolist() for part in found_here]
                        if split == TEST and good:
                            right.setdefault(start, []).append((mask, given))
                found[Fit(start, rate, fold)] = answers
    made = task.results(found, folder)
    alone = {each: found[each] for each in found if each.rate == GOOD[each.start]}
    assert task.results(alone, folder)["results"] == made["results"]
    compared = made["results"]["segmentation"]["miou"]
    for start, pairs in right.items():
        assert made["protocol"]["rates"][start]["chosen"] == [GOOD[start]] * 3
        masks, given = zip(*pairs, strict=True)
        assert compared[start] == pytest.approx(summary(pixels_of(masks, given, 9))["miou"])
    gain = compared["gain"]
    assert gain["value"] == pytest.approx(compared["pretrained"] - compared["random"])
    assert gain["low"] <= gain["value"] <= gain["high"]
    masks = [mask for mask, _ in right["random"]]
    background = [np.zeros_like(mask) for mask in masks]
    floor = summary(pixels_of(masks, background, 9))["miou"]
    assert compared["floors"]["all_background"] == pytest.approx(floor)
    assert len(names) == made["protocol"]["rows"]
    scores = task.scores(found, "random", folder)
    means = [(mask == given).mean() for mask, given in right["random"]]
    np.testing.assert_allclose(sorted(scores.right), sorted(means))
