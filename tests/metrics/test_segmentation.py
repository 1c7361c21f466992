"""Segmentation: golden figures, an independent statement, and numbers that are easily mistaken."""

import numpy as np
import pytest

from vlbeit_jax.metrics.segmentation import IGNORED, counts, interval, iou, pixels_of, summary

# ``reduce_zero_label`` first: 0 does not count, class 1 becomes 0.
RAW = np.array([[0, 1, 1, 2], [2, 2, 3, 3], [0, 1, 3, 3]], np.uint8)
GIVEN = np.array([[0, 0, 0, 1], [1, 0, 2, 2], [2, 0, 2, 1]], np.uint8)
MASK = np.where(RAW == 0, IGNORED, RAW - 1).astype(np.uint8)


def pictures(count=20, classes=6, seed=0):
    """Masks whose classes differ between pictures, and answers that are often right."""
    rng = np.random.default_rng(seed)
    masks, given = [], []
    for _ in range(count):
        shape, own = rng.integers(3, 9, 2), rng.integers(0, classes, 3)
        mask = rng.choice(own, shape).astype(np.uint8)
        wrong = rng.random(shape) < 0.4
        given.append(np.where(wrong, rng.integers(0, classes, shape), mask).astype(np.uint8))
        mask[rng.random(shape) < 0.1] = IGNORED
        masks.append(mask)
    return masks, given


def by_a_matrix(masks, given, classes):
    """mIoU, mean accuracy and pixel accuracy, pixel by pixel in float64."""
    matrix = np.zeros((classes, classes))
    for mask, found in zip(masks, given, strict=True):
        for truth, answer in zip(mask.ravel(), found.ravel(), strict=True):
            if truth != 255:
                matrix[truth, answer] += 1
    union = matrix.sum(0) + matrix.sum(1) - np.diag(matrix)
    rows = matrix.sum(1)
    return {
        "miou": np.mean([matrix[c, c] / union[c] for c in range(classes) if union[c]]),
        "mean_accuracy": np.mean([matrix[c, c] / rows[c] for c in range(classes) if rows[c]]),
        "pixel_accuracy": np.trace(matrix) / matrix.sum(),
    }


def test_golden():
    """The figures of mmsegmentation's ``mean_iou`` (0.11); the empty class is left out."""
    pixels = pixels_of([MASK], [GIVEN], 4)
    np.testing.assert_allclose(iou(pixels), [0.75, 0.5, 0.75, np.nan])
    found = summary(pixels)
    assert found["miou"] == pytest.approx(2 / 3)
    assert found["pixel_accuracy"] == 0.8
    assert found["mean_accuracy"] == pytest.approx(0.8056, abs=5e-5)
    # All pixels to class 2, which has four of ten.
    assert found["miou_majority"] == pytest.approx(0.4 / 3)
    assert found["pixel_accuracy_majority"] == 0.4
    wrong_order = np.where(RAW - 1 == IGNORED, IGNORED, RAW - 1).astype(np.uint8)
    np.testing.assert_array_equal(wrong_order, MASK)


def test_figures_are_those_of_one_confusion_matrix():
    masks, given = pictures()
    pixels = pixels_of(masks, given, 6)
    found, expected = summary(pixels), by_a_matrix(masks, given, 6)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert found["count"] == 20
    # Controls: the mean over pictures, and an empty class counted as 0.
    each = [summary(pixels_of([m], [g], 6))["miou"] for m, g in zip(masks, given, strict=True)]
    assert abs(np.mean(each) - expected["miou"]) > 0.03
    assert summary(pixels_of(masks, given, 9))["miou"] == found["miou"]


def test_an_answer_for_every_pixel_is_as_good_as_the_majority():
    masks, _ = pictures()
    largest = int(np.argmax(pixels_of(masks, masks, 6).truth.sum(0)))
    found = summary(pixels_of(masks, [np.full_like(mask, largest) for mask in masks], 6))
    assert found["miou"] == pytest.approx(found["miou_majority"])
    assert found["pixel_accuracy"] == pytest.approx(found["pixel_accuracy_majority"])


def test_the_interval_holds_the_figure_and_grows_with_groups():
    masks, given = pictures(40)
    pixels = pixels_of(masks, given, 6)
    value = summary(pixels)["miou"]
    low, high = interval(pixels, np.arange(40))
    assert low < value < high and high - low < 0.3
    # Pictures that are the same four times tell no more than one does.
    fourfold = type(pixels)(*(np.tile(part, (4, 1)) for part in pixels))
    wide = interval(fourfold, np.tile(np.arange(40), 4))
    narrow = interval(fourfold, np.arange(160))
    assert wide[1] - wide[0] > 1.5 * (narrow[1] - narrow[0])


def test_nothing_that_counts_gives_0():
    found = summary(pixels_of([np.full((2, 2), IGNORED, np.uint8)], [GIVEN[:2, :2]], 4))
    assert found["miou"] == found["pixel_accuracy"] == found["mean_accuracy"] == 0
    with pytest.raises(ValueError, match=r"shape \(3, 4\) and a prediction of shape \(2, 4\)"):
        counts(MASK, GIVEN[:2], 4)
