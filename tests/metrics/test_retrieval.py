"""Recall in both directions: golden values, ties, re-ranking, and a slow statement of each."""

import math

import numpy as np
import pytest

from vlbeit_jax.metrics import retrieval
from vlbeit_jax.metrics.retrieval import Ranks, candidates, chance, rank, recalls, rerank

CUTS = (1, 2, 3)


def slow_rank(own, scores):
    """Sorts the choices one query after the other, wrong ones first among equals."""
    order = sorted(range(len(scores)), key=lambda j: (-scores[j], own[j]))
    wrong_before = 0
    for choice in order:
        if own[choice]:
            return 1 + wrong_before
        wrong_before += 1
    raise AssertionError("nothing is right")


def slow_ranks(scores, owner):
    images, texts = scores.shape
    of_texts = [slow_rank(owner == image, scores[image]) for image in range(images)]
    of_images = [
        slow_rank(np.arange(images) == owner[text], scores[:, text]) for text in range(texts)
    ]
    return Ranks(np.array(of_texts), np.array(of_images))


def random_owner(rng, images, texts):
    owner = np.concatenate([np.arange(images), rng.integers(0, images, texts - images)])
    return rng.permutation(owner)


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_golden_values():
    """Of the issue's facts; there are no ties, so any rule for ties gives them."""
    owner = np.array([0, 0, 1, 2, 2, 2])
    scores = np.array(
        [
            [0.9, 0.2, 0.8, 0.1, 0.3, 0.4],
            [0.5, 0.1, 0.6, 0.7, 0.2, 0],
            [0.3, 0.4, 0.2, 0.35, 0.1, 0.05],
        ]
    )
    found = recalls(rank(scores, owner), CUTS)
    both = {"image_to_text": (1 / 3, 1, 1), "text_to_image": (1 / 6, 5 / 6, 1)}
    assert found == pytest.approx(
        {
            f"{name}/recall_{cut}": v
            for name, vs in both.items()
            for cut, v in zip(CUTS, vs, strict=True)
        }
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("levels", [3, 10**6])  # Three different scores: nearly all are ties.
def test_ranks_are_those_of_a_slow_statement(seed, levels, monkeypatch):
    monkeypatch.setattr(retrieval, "ROWS_AT_A_TIME", 5)
    rng = np.random.default_rng(seed)
    owner = random_owner(rng, 13, 40)
    scores = rng.integers(0, levels, (13, 40)).astype(np.float32)
    assert_same(rank(scores, owner), slow_ranks(scores, owner))


def test_equal_scores_recall_nothing():
    owner = np.repeat(np.arange(4), 2)
    found = rank(np.zeros((4, 8), np.float32), owner)
    assert_same(found, Ranks(np.full(4, 7), np.full(8, 4)))
    assert set(recalls(found, (1, 2, 3)).values()) == {0}


def test_a_model_that_knows_all_recalls_all():
    owner = random_owner(np.random.default_rng(0), 5, 12)
    scores = (owner == np.arange(5)[:, None]).astype(np.float32)
    assert set(recalls(rank(scores, owner), CUTS).values()) == {1}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"scores": [[0.1, np.nan], [0, 1]]}, "NaN or infinite"),
        ({"scores": [[0.1, -np.inf], [0, 1]]}, "NaN or infinite"),
        ({"owner": [0, 0]}, r"images without a text: \[1\]"),
        ({"owner": [0, 2]}, "numbers of the 2 images"),
        ({"owner": [0, -1]}, "numbers of the 2 images"),
    ],
)
def test_what_has_no_rank_is_an_error(changed, said):
    given = {"scores": [[0.1, 0.2], [0.3, 0.1]], "owner": [0, 1]} | changed
    with pytest.raises(ValueError, match=said):
        rank(np.array(given["scores"]), np.array(given["owner"]))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("k", [1, 4, 12])
def test_reranking_is_that_of_a_slow_statement(seed, k):
    rng = np.random.default_rng(seed)
    owner, images = random_owner(rng, 6, 12), np.arange(6)
    scores = rng.integers(0, 4, (6, 12)).astype(np.float32)
    matching = rng.integers(0, 3, (6, 12)).astype(np.float32)
    own = owner == images[:, None]
    chosen = candidates(scores, own, k)
    found = rerank(
        rank(scores, owner).of_texts,
        np.take_along_axis(own, chosen, 1),
        np.take_along_axis(matching, chosen, 1),
    )
    for image in images:
        order = sorted(range(12), key=lambda j: (-scores[image, j], own[image, j], j))
        assert chosen[image].tolist() == order[:k]
        # Candidates by their matching score, then all others as they were.
        first = sorted(order[:k], key=lambda j: (-matching[image, j], own[image, j]))
        places = [place for place, text in enumerate(first + order[k:]) if own[image, text]]
        assert found[image] == 1 + places[0]


def test_reranking_by_the_same_scores_changes_nothing():
    rng = np.random.default_rng(0)
    owner = random_owner(rng, 8, 20)
    scores, own = rng.integers(0, 5, (8, 20)).astype(float), owner == np.arange(8)[:, None]
    ranks = rank(scores, owner)
    chosen = candidates(scores, own, 7)
    again = rerank(
        ranks.of_texts, np.take_along_axis(own, chosen, 1), np.take_along_axis(scores, chosen, 1)
    )
    np.testing.assert_array_equal(again, ranks.of_texts)
    best = np.take_along_axis(own, chosen, 1).astype(float)  # A head that knows the answer.
    assert (
        rerank(ranks.of_texts, best > 0, best) == np.where(best.any(1), 1, ranks.of_texts)
    ).all()


def test_reranking_refuses_what_it_cannot_order():
    with pytest.raises(ValueError, match="best k=3 of 2"):
        candidates(np.zeros((1, 2)), np.zeros((1, 2), bool), 3)
    with pytest.raises(ValueError, match="matching score is NaN"):
        rerank(np.ones(1, int), np.ones((1, 1), bool), np.array([[np.nan]]))


def test_chance_is_the_recall_of_random_scores():
    rng = np.random.default_rng(0)
    owner = random_owner(rng, 10, 30)
    drawn = [recalls(rank(rng.random((10, 30)), owner), CUTS) for _ in range(2000)]
    for name, expected in chance(owner, CUTS).items():
        assert np.mean([each[name] for each in drawn]) == pytest.approx(expected, abs=0.008), name


def test_chance_of_cocos_test_split():
    """5,000 images with 5 texts each: a thousandth for the best five texts of an image."""
    found = chance(np.repeat(np.arange(5000), 5))
    assert found == pytest.approx(
        {
            f"{name}/recall_{k}": v
            for name in ("image_to_text", "text_to_image")
            for k, v in ((1, 0.0002), (5, 0.001), (10, 0.002))
        },
        rel=2e-3,
    )
    few = chance(np.array([0, 0, 1]), (3, 5))
    assert set(few.values()) == {1}
    owner = np.array([0, 0, 1, 2, 2])
    exact = [1 - math.comb(5 - own, 2) / math.comb(5, 2) for own in (2, 1, 2)]
    assert chance(owner, (2,))["image_to_text/recall_2"] == pytest.approx(np.mean(exact))
