"""Mean intersection over union, as ADE20K and mmsegmentation count it: one matrix over the set.

Needs NumPy alone: an export for PyTorch takes this file as it is.

A mean over pictures is another number. So is a mean over classes that occur nowhere.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

IGNORED = 255  # Of a mask: pixels that do not count.
RESAMPLES = 1000  # Of the bootstrap.


class Pixels(NamedTuple):
    """Pixels of some pictures that count, by class: int64 arrays [A, C], a row for each picture.

    Their sums over pictures are the diagonal and the margins of the confusion matrix.

    Attributes:
      right: that are of the class and were given to it.
      truth: that are of the class.
      given: that were given to it.
    """

    right: np.ndarray
    truth: np.ndarray
    given: np.ndarray


def pixels_of(masks: Sequence[np.ndarray], predicted: Sequence[np.ndarray], classes: int) -> Pixels:
    """Counts the pixels of pictures.

    Args:
      masks: the right class of each pixel, or 255: arrays [height, width].
      predicted: the class that was given, of the same shapes.
      classes: number of them.
    """
    rows = [counts(mask, given, classes) for mask, given in zip(masks, predicted, strict=True)]
    return joined(rows, classes)


def counts(mask: np.ndarray, given: np.ndarray, classes: int) -> Pixels:
    """Returns the pixels of one picture by class: arrays [C]. The arguments are as above.

    Raises:
      ValueError: the two have different shapes.
    """
    if mask.shape != given.shape:
        raise ValueError(f"a mask of shape {mask.shape} and a prediction of shape {given.shape}")
    counted = mask != IGNORED
    truth, answer = mask[counted].astype(np.int64), given[counted].astype(np.int64)
    return Pixels(
        *(np.bincount(each, minlength=classes) for each in (truth[truth == answer], truth, answer))
    )


def joined(rows: Sequence[Pixels], classes: int) -> Pixels:
    """Returns the pixels of pictures from those of each."""
    parts = (np.array([row[part] for row in rows], np.int64) for part in range(3))
    return Pixels(*(part.reshape(-1, classes) for part in parts))


def iou(pixels: Pixels) -> np.ndarray:
    """Returns the intersection over union of each class, float64 [C]; NaN if it occurs nowhere."""
    right, truth, given = (part.sum(axis=0).astype(np.float64) for part in pixels)
    union = truth + given - right
    return np.divide(right, union, out=np.full_like(union, np.nan), where=union > 0)


def summary(pixels: Pixels) -> dict[str, float]:
    """Returns figures over all pictures.

    Returns:
      ``miou``: mean of ``iou`` over the classes that occur in a mask or a prediction.
      ``mean_accuracy``: mean over the classes of the masks of the share of their pixels that are
      right. ``pixel_accuracy``: share of all pixels. ``miou_majority`` and
      ``pixel_accuracy_majority``: the same if every pixel is given to the most frequent class.
      ``count``: of pictures. All are 0 if no pixel counts.
    """
    right, truth, _ = (part.sum(axis=0).astype(np.float64) for part in pixels)
    present, total = truth > 0, max(truth.sum(), 1.0)
    by_class = iou(pixels)
    largest = truth.max(initial=0.0) / total
    return {
        "miou": _mean(by_class[~np.isnan(by_class)]),
        "mean_accuracy": _mean(right[present] / truth[present]),
        "pixel_accuracy": float(right.sum() / total),
        "miou_majority": float(largest / max(present.sum(), 1)),
        "pixel_accuracy_majority": float(largest),
        "count": len(pixels.right),
    }


def interval(pixels: Pixels, groups: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Returns the bounds of the 95% interval of ``miou``: a bootstrap over groups of pictures.

    Args:
      pixels: of each picture.
      groups: name or number of each picture's group.
      seed: of the bootstrap.
    """
    _, group = np.unique(groups, return_inverse=True)
    size, classes = int(group.max()) + 1, pixels.right.shape[1]
    summed = []
    for part in pixels:
        sums = np.zeros((size, classes))
        np.add.at(sums, group, part)
        summed.append(sums)
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(RESAMPLES):
        times = np.bincount(rng.integers(0, size, size), minlength=size).astype(np.float64)
        right, truth, given = (times @ part for part in summed)
        union = truth + given - right
        drawn.append(_mean(right[union > 0] / union[union > 0]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else 0.0
