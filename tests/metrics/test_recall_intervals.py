"""Intervals of recalls: pictures are drawn in their groups, each with all its captions."""

import numpy as np
import pytest
from scipy.stats import binom

from vlbeit_jax.metrics.retrieval import Ranks, recall_intervals, recalls
from vlbeit_jax.tasks.open_fine_tuned import groups_of

IMAGES, CUTS = 120, (1, 5)


def answers(seed, captions=(1, 8)):
    """Ranks of a model that finds all captions of some pictures and none of others."""
    rng = np.random.default_rng(seed)
    owner = rng.permutation(np.repeat(np.arange(IMAGES), rng.integers(*captions, IMAGES)))
    known = rng.random(IMAGES) < 0.4
    of_texts = np.where(known, 1, rng.integers(1, 30, IMAGES))
    lucky = rng.random(len(owner)) < 0.05
    of_images = np.where(known[owner] | lucky, rng.integers(1, 7, len(owner)), 40)
    return Ranks(of_texts, of_images), owner


def slowly(ranks, owner, groups, cut, resamples=3000):
    """Draws groups with a generator of its own, and lists the queries that each draw asks."""
    rng, names = np.random.default_rng(99), sorted(set(groups.tolist()))
    images_of = [[i for i in range(IMAGES) if groups[i] == name] for name in names]
    texts_of = [[t for t in range(len(owner)) if owner[t] == image] for image in range(IMAGES)]
    drawn = {"image_to_text": [], "text_to_image": []}
    for _ in range(resamples):
        images = [i for group in rng.choice(len(names), len(names)) for i in images_of[group]]
        texts = [text for image in images for text in texts_of[image]]
        drawn["image_to_text"].append((ranks.of_texts[images] <= cut).mean())
        drawn["text_to_image"].append((ranks.of_images[texts] <= cut).mean())
    return {
        f"{way}/recall_{cut}": np.quantile(values, [0.025, 0.975]) for way, values in drawn.items()
    }


@pytest.mark.parametrize("grouped", [False, True])
def test_intervals_are_those_of_a_slow_statement(grouped):
    ranks, owner = answers(0)
    groups = np.arange(IMAGES) // (4 if grouped else 1)
    found = recall_intervals(ranks, owner, groups, CUTS)
    assert list(found) == list(recalls(ranks, CUTS))
    for name, value in recalls(ranks, CUTS).items():
        assert found[name][0] < value < found[name][1], name
    for name, bounds in slowly(ranks, owner, groups, 5).items():
        np.testing.assert_allclose(found[name], bounds, atol=0.015, err_msg=name)


def test_without_groups_and_with_one_caption_each_they_are_those_of_the_binomial():
    ranks, owner = answers(1, captions=(1, 2))
    found = recall_intervals(ranks, owner, np.arange(IMAGES), CUTS)
    for name, value in recalls(ranks, CUTS).items():
        # The number of hits among as many draws with replacement.
        exact = binom.ppf([0.025, 0.975], IMAGES, value) / IMAGES
        np.testing.assert_allclose(found[name], exact, atol=1.01 / IMAGES, err_msg=name)


def test_captions_of_one_picture_are_no_new_evidence():
    """The control: were each caption its own unit, the interval would be too narrow."""
    ranks, owner = answers(0)
    name, texts = "text_to_image/recall_5", np.arange(len(owner))
    right = recall_intervals(ranks, owner, np.arange(IMAGES), CUTS)[name]
    one_each = Ranks(ranks.of_images, ranks.of_images)
    wrong = recall_intervals(one_each, texts, texts, CUTS)[name]
    assert np.ptp(wrong) < 0.7 * np.ptp(right)
    bounds = slowly(ranks, owner, np.arange(IMAGES), 5)[name]
    assert np.abs(np.subtract(wrong, bounds)).min() > 0.015  # The first test would see it.


def test_intervals_are_the_same_every_time():
    ranks, owner = answers(2)
    found = [recall_intervals(ranks, owner, np.arange(IMAGES)) for _ in range(2)]
    assert found[0] == found[1] and len(found[0]) == 6


def test_records_of_one_picture_are_one_group_unless_the_set_has_groups():
    pictures = [b"a", b"b", b"a", b"c"]
    pairs = [{"sha256": each} for each in pictures]
    assert groups_of(pairs).tolist() == [0, 1, 0, 2]
    grouped = [
        each | {"group": name} for each, name in zip(pairs, (b"x", b"x", b"y", b"x"), strict=True)
    ]
    assert groups_of(grouped).tolist() == [0, 0, 1, 0]
