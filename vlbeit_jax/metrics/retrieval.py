"""Recall of retrieval between images and texts, and re-ranking of the best candidates.

NumPy only. A score matrix has a row per image and a column per text; ``owner`` says which image a
text belongs to. An image may have several texts, as in COCO and Flickr30k.

Ties count against the right answer. A model that gives all pairs the same score therefore recalls
nothing. A stable sort would put the first column first, which in the usual order of the data is
right more often than by chance.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vlbeit_jax.metrics.interval import mean_interval
from vlbeit_jax.shapes import Bool, Float, Int

CUTS = (1, 5, 10)
ROWS_AT_A_TIME = 256  # Of a score matrix, so that intermediate results stay small.


class Ranks(NamedTuple):
    """Where the right answers stand; 1 is first.

    Attributes:
      of_texts: for each image, the rank of its best text among the texts of other images.
      of_images: for each text, the rank of its image among all images.
    """

    of_texts: Int[np.ndarray, " images"]
    of_images: Int[np.ndarray, " texts"]


def rank(scores: Float[np.ndarray, "images texts"], owner: Int[np.ndarray, " texts"]) -> Ranks:
    """Returns the ranks of the right answers in both directions.

    Args:
      scores: higher is better.
      owner: the image of each text.

    Raises:
      ValueError: a score is NaN or infinite, an owner does not exist, or an image has no text.
    """
    _check(scores, owner)
    of_texts = np.empty(len(scores), np.int64)
    for rows in _blocks(len(scores)):
        own = owner == np.arange(rows.start, rows.stop)[:, None]
        best = np.where(own, scores[rows], -np.inf).max(axis=1, keepdims=True)
        of_texts[rows] = 1 + ((scores[rows] >= best) & ~own).sum(axis=1)
    right = scores[owner, np.arange(len(owner))]
    # The right image is as good as itself; it makes the 1 of the rank.
    of_images = sum((scores[rows] >= right).sum(axis=0) for rows in _blocks(len(scores)))
    return Ranks(of_texts, np.asarray(of_images, np.int64))


def candidates(
    scores: Float[np.ndarray, "queries choices"], own: Bool[np.ndarray, "queries choices"], k: int
) -> Int[np.ndarray, "queries k"]:
    """Returns the ``k`` best choices of each query, the best first.

    Of equally good choices, wrong ones come before right ones, and then lower numbers before higher
    ones.

    Args:
      scores: higher is better.
      own: which choices are right.
      k: how many; at most the number of choices.

    Raises:
      ValueError: ``k`` is out of range.
    """
    if not 1 <= k <= scores.shape[1]:
        raise ValueError(f"cannot take the best k={k} of {scores.shape[1]} choices")
    return np.stack([np.lexsort((right, -row))[:k] for row, right in zip(scores, own, strict=True)])


def rerank(
    ranks: Int[np.ndarray, " queries"],
    own: Bool[np.ndarray, "queries k"],
    scores: Float[np.ndarray, "queries k"],
) -> Int[np.ndarray, " queries"]:
    """Returns ranks after the best ``k`` candidates were ordered by other scores.

    A right answer that is not among the candidates keeps its rank, which is above ``k``.

    Args:
      ranks: by the scores that chose the candidates.
      own: which candidates are right (``candidates`` put them in any order).
      scores: of a matching head; higher is better.

    Raises:
      ValueError: a score is NaN or infinite.
    """
    if not np.isfinite(scores).all():
        raise ValueError("a matching score is NaN or infinite")
    best = np.where(own, scores, -np.inf).max(axis=1, keepdims=True)
    among = 1 + ((scores >= best) & ~own).sum(axis=1)
    return np.where(own.any(axis=1), among, ranks)


def recalls(ranks: Ranks, cuts: Sequence[int] = CUTS) -> dict[str, float]:
    """Returns the share of images and of texts whose right answer is among the best k, by name."""
    directions = {"image_to_text": ranks.of_texts, "text_to_image": ranks.of_images}
    return {
        f"{name}/recall_{cut}": float((of_direction <= cut).mean())
        for name, of_direction in directions.items()
        for cut in cuts
    }


def recall_intervals(
    ranks: Ranks,
    owner: Int[np.ndarray, " texts"],
    groups: Int[np.ndarray, " images"],
    cuts: Sequence[int] = CUTS,
) -> dict[str, tuple[float, float]]:
    """Returns the bounds of the 95% interval of each recall, by the names of ``recalls``.

    The bootstrap draws groups of images, and each image with all its texts, because texts of one
    image are not independent of each other. It draws the queries only. The candidates stay, because
    a recall depends on their number.

    Args:
      ranks: of the right answers.
      owner: the image of each text.
      groups: the number of each image's group.
      cuts: the numbers of best candidates.
    """
    directions = {
        "image_to_text": (ranks.of_texts, groups),
        "text_to_image": (ranks.of_images, groups[owner]),
    }
    return {
        f"{name}/recall_{cut}": mean_interval((rank <= cut).astype(float), group)[1:]
        for name, (rank, group) in directions.items()
        for cut in cuts
    }


def chance(owner: Int[np.ndarray, " texts"], cuts: Sequence[int] = CUTS) -> dict[str, float]:
    """Returns the expected recalls of a random order, by the names of ``recalls``."""
    texts_of, texts = np.bincount(owner), len(owner)
    images, chances = len(texts_of), {}
    for cut in cuts:
        # None of the first ``cut`` texts is right: texts are drawn without replacement.
        drawn = np.arange(min(cut, texts))
        missed = np.maximum(texts - texts_of[:, None] - drawn, 0) / (texts - drawn)
        chances[f"image_to_text/recall_{cut}"] = float((1 - missed.prod(axis=1)).mean())
    for cut in cuts:
        chances[f"text_to_image/recall_{cut}"] = min(1.0, cut / images)
    return chances


def _check(scores: Float[np.ndarray, "images texts"], owner: Int[np.ndarray, " texts"]) -> None:
    images, texts = scores.shape
    if texts and (owner.min() < 0 or owner.max() >= images):
        raise ValueError(f"owners must be numbers of the {images} images")
    without = np.flatnonzero(np.bincount(owner, minlength=images) == 0)
    if len(without):
        raise ValueError(f"images without a text: {without[:10].tolist()}")
    # A comparison with NaN is False, which would make the right answer the first.
    if not all(np.isfinite(scores[rows]).all() for rows in _blocks(images)):
        raise ValueError("a score is NaN or infinite")


def _blocks(count: int) -> list[slice]:
    return [
        slice(start, min(start + ROWS_AT_A_TIME, count))
        for start in range(0, count, ROWS_AT_A_TIME)
    ]
