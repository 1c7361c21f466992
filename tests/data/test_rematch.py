"""Wrong partners are a permutation without equal captions, and change one field alone."""

import contextlib

import numpy as np
import pytest

from vlbeit_jax.config.streams import PairStreamConfig
from vlbeit_jax.data.examples.masked import MaskedExample
from vlbeit_jax.data.pipeline import batches
from vlbeit_jax.data.rematch import Rematched, wrong_partners
from vlbeit_jax.data.sampling import EvaluationExamples
from vlbeit_jax.data.source import VALIDATION, open_set


def records(*counts):
    """Records of which ``counts[k]`` have caption k."""
    captions = np.repeat(np.arange(len(counts)), counts)
    return [
        {"captions": [b"caption %d" % caption]}
        for caption in np.random.default_rng(0).permutation(captions)
    ]


def clashes(found, partners):
    captions = [record["captions"][0] for record in found]
    return sum(captions[i] == captions[partner] for i, partner in enumerate(partners))


@pytest.mark.parametrize(
    "counts",
    [
        (1, 1),
        (1, 1, 1),
        (2, 1, 1),
        (1,) * 500,
        (3,) * 100,
        (50,) * 5,
        (150,) + (1,) * 350,
        (225,) + (1,) * 275,
        (250,) + (1,) * 250,
        (50, 50),
    ],
    ids=lambda counts: f"{len(counts)}x{max(counts)}",
)
def test_wrong_partners_are_a_permutation_with_other_captions(counts):
    found = records(*counts)
    for seed in range(5):
        partners = wrong_partners(found, seed)
        assert sorted(partners) == list(range(len(found)))
        assert clashes(found, partners) == 0
        assert np.array_equal(partners, wrong_partners(found, seed))


def test_where_equal_captions_cannot_be_avoided_some_stay():
    partners = wrong_partners(records(7, 3), 0)
    assert sorted(partners) == list(range(10)) and clashes(records(7, 3), partners) >= 4
    assert sorted(wrong_partners(records(4), 0)) == [0, 1, 2, 3] and list(
        wrong_partners(records(1), 0)
    ) == [0]


def test_seeds_give_other_partners():
    found = [wrong_partners(records(*(1,) * 100), seed) for seed in range(2)]
    assert (found[0] != found[1]).mean() > 0.9


@pytest.mark.parametrize(
    "field, changed",
    [("image", {"image"}), ("captions", {"text", "text_masked", "text_targets", "text_weights"})],
)
def test_rematching_changes_one_field_and_no_mask(held_out, tokenizer, field, changed):
    own = open_set(str(held_out)).records(VALIDATION)
    partners = wrong_partners(own, 0)
    wrong = Rematched(own, partners, field)
    assert len(wrong) == len(own)
    for i in (0, 57, 102):
        assert wrong[i]["id"] == own[i]["id"]
        assert np.array_equal(wrong[i][field], own[int(partners[i])][field]) and not np.array_equal(
            wrong[i][field], own[i][field]
        )
        assert all(np.array_equal(wrong[i][key], own[i][key]) for key in own[i] if key != field)
    make = MaskedExample(
        PairStreamConfig(num_masked_patches=6, mask_block=2, text_length=24, masked_text=0.5),
        16,
        4,
        tokenizer,
        False,
    )
    whole = []
    for found in (own, wrong):
        examples = EvaluationExamples(found, make, 103, seed=0)
        with contextlib.closing(batches(examples, 103)) as batch:
            whole.append(next(batch))
    for key in whole[0]:
        same = np.array_equal(whole[0][key], whole[1][key])
        assert same != (key in changed), key
