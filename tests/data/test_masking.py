"""Masks are exact in count, spare the specials, and are distributed as the papers' code says."""

import math
import random

import numpy as np
import pytest

from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.masking import blockwise_mask, mask_text, masked_slots
from vlbeit_jax.types import Special

VOCABULARY = 300
WORD_STARTS = np.arange(VOCABULARY) % 3 == 0


def masks(grid, count, smallest, draws):
    found = np.zeros((draws, grid * grid), bool)
    for seed in range(draws):
        found[seed, blockwise_mask(Draws(seed), grid, count, smallest)] = True
    return found.reshape(draws, grid, grid)


def reference_mask(rng, grid, count, smallest):
    """The block-wise mask of BEiT v2, statement by statement."""
    mask = [[0] * grid for _ in range(grid)]
    while (have := sum(map(sum, mask))) < count:
        budget, delta = count - have, 0
        for _ in range(10):
            area, ratio = (
                rng.uniform(smallest, budget),
                math.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3))),
            )
            h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if h < grid and w < grid:
                top, left = rng.randint(0, grid - h), rng.randint(0, grid - w)
                cells = [(y, x) for y in range(top, top + h) for x in range(left, left + w)]
                if 0 < sum(not mask[y][x] for y, x in cells) <= budget:
                    delta = sum(not mask[y][x] for y, x in cells)
                    for y, x in cells:
                        mask[y][x] = 1
                    break
        if not delta:
            break
    visible = [(y, x) for y in range(grid) for x in range(grid) if not mask[y][x]]
    for y, x in rng.sample(visible, count - sum(map(sum, mask))):
        mask[y][x] = 1
    return np.array(mask, bool)


def texts(count=200, length=40):
    """Rows as the loader makes them: CLS, pieces, SEP, padding."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        pieces = rng.integers(0, length - 1)
        row = np.full(length, Special.PAD, np.int32)
        row[: pieces + 2] = [
            Special.CLS,
            *rng.integers(Special.MASK + 1, VOCABULARY, pieces),
            Special.SEP,
        ]
        yield Draws(seed), row


@pytest.mark.parametrize("smallest", [1, 4, 16, 1000])
@pytest.mark.parametrize(
    "grid, count",
    [
        (1, 0),
        (1, 1),
        (2, 1),
        (2, 4),
        (4, 6),
        (7, 48),
        (8, 24),
        (14, 0),
        (14, 1),
        (14, 75),
        (14, 195),
        (14, 196),
        (16, 128),
        (24, 230),
    ],
)
def test_blocks_are_exact_in_count(grid, count, smallest):
    for seed in range(10):
        found = blockwise_mask(Draws(seed), grid, count, smallest)
        assert found.dtype == np.int32 and found.shape == (count,)
        assert np.all(np.diff(found) > 0) and np.all((0 <= found) & (found < grid * grid))
        assert np.array_equal(found, blockwise_mask(Draws(seed), grid, count, smallest))


def test_blocks_favour_the_centre_as_measured_for_beit():
    share = masks(14, 75, 16, 5000).mean(axis=0)
    edges = np.concatenate([share[0, 6:8], share[-1, 6:8], share[6:8, 0], share[6:8, -1]])
    assert share[[0, 0, -1, -1], [0, -1, 0, -1]].mean() == pytest.approx(0.044, abs=0.008)
    assert edges.mean() == pytest.approx(0.19, abs=0.015)
    assert share[6:8, 6:8].mean() == pytest.approx(0.72, abs=0.015)


@pytest.mark.parametrize("grid, count, smallest", [(14, 75, 16), (8, 24, 4), (4, 4, 4)])
def test_blocks_are_distributed_as_in_the_papers_code(grid, count, smallest):
    draws = 1500
    ours = masks(grid, count, smallest, draws)
    theirs = np.stack(
        [reference_mask(random.Random(seed), grid, count, smallest) for seed in range(draws)]
    )
    error = np.sqrt(2 * 0.25 / draws)
    assert np.abs(ours.mean(axis=0) - theirs.mean(axis=0)).max() < 4.5 * error
    whole = [
        np.mean(mask.all(axis=1).any(axis=1) | mask.all(axis=2).any(axis=1))
        for mask in (ours, theirs)
    ]
    assert whole[0] == pytest.approx(
        whole[1], abs=2.5 * error
    )  # No block reaches from edge to edge.
    for axis in (1, 2):  # masked neighbours: many in blocks, few among single patches
        changes = [
            np.diff(mask.astype(int), axis=axis).__abs__().sum((1, 2)) for mask in (ours, theirs)
        ]
        assert changes[0].mean() == pytest.approx(
            changes[1].mean(), abs=5 * changes[1].std() * np.sqrt(2 / draws)
        )
        assert changes[0].std() == pytest.approx(changes[1].std(), rel=0.15)


@pytest.mark.parametrize("word_starts", [None, WORD_STARTS], ids=["pieces", "words"])
@pytest.mark.parametrize("share", [0.0, 0.15, 0.5, 1.0])
def test_text_masks_are_exact_in_count_and_spare_the_specials(share, word_starts):
    for draws, row in texts():
        before = row.copy()
        found = mask_text(draws, row, share, VOCABULARY, word_starts)
        real = np.flatnonzero(row > Special.MASK)
        count = max(1, round(share * real.size)) if real.size else 0
        used = found.positions[:count]
        assert np.array_equal(row, before)
        assert (
            found.positions.shape
            == found.targets.shape
            == found.weights.shape
            == (masked_slots(len(row), share),)
        )
        assert np.array_equal(found.weights, np.arange(len(found.weights)) < count)
        assert not found.positions[count:].any() and not found.targets[count:].any()
        assert np.all(np.diff(used) > 0) and np.isin(used, real).all()
        assert np.array_equal(found.targets[:count], row[used])
        untouched = np.delete(np.arange(len(row)), used)
        assert np.array_equal(found.text[untouched], row[untouched])
        assert np.all((found.text[used] >= Special.MASK) & (found.text[used] < VOCABULARY))


def test_text_without_pieces_has_nothing_to_predict():
    row = np.array(
        [Special.CLS, Special.SEP, Special.SEP, Special.UNKNOWN, Special.PAD, Special.PAD], np.int32
    )
    found = mask_text(Draws(0), row, 0.5, VOCABULARY)
    assert (
        np.array_equal(found.text, row)
        and not found.weights.any()
        and not found.positions.any()
        and not found.targets.any()
    )


def test_hidden_pieces_become_mask_other_or_stay_80_10_10():
    row = np.concatenate([[Special.CLS], np.arange(5, 255), [Special.SEP]]).astype(np.int32)
    kinds, hidden, drawn = np.zeros(3), np.zeros(len(row)), np.zeros(VOCABULARY)
    for seed in range(400):
        found = mask_text(Draws(seed), row, 0.4, VOCABULARY)
        now, then = found.text[found.positions], found.targets
        kinds += [
            (now == Special.MASK).sum(),
            ((now != Special.MASK) & (now != then)).sum(),
            (now == then).sum(),
        ]
        drawn += np.bincount(now[(now != Special.MASK) & (now != then)], minlength=VOCABULARY)
        hidden[found.positions] += 1
    assert kinds / kinds.sum() == pytest.approx([0.8, 0.1, 0.1], abs=5 * math.sqrt(0.16 / 40_000))
    assert (
        hidden[1:-1].mean() == 400 * 0.4 and hidden[1:-1].min() > 100 and hidden[1:-1].max() < 220
    )  # 160 +- 6 standard deviations
    assert not drawn[: Special.MASK + 1].any() and (drawn[Special.MASK + 1 :] > 0).all()


def test_mask_is_not_drawn_as_a_replacement():
    """Three ordinary pieces: were MASK drawn as well, 82.5% would be masked."""
    row = np.array([Special.CLS, *[5, 6, 7] * 100, Special.SEP], np.int32)
    found = np.concatenate([mask_text(Draws(seed), row, 1.0, 8).text[1:-1] for seed in range(200)])
    assert (found == Special.MASK).mean() == pytest.approx(
        0.8, abs=5 * math.sqrt(0.16 / len(found))
    ) and set(found) == {4, 5, 6, 7}


@pytest.mark.parametrize("share", [0.15, 0.5])
def test_whole_words_are_hidden_together(share):
    """Every word is hidden as a whole or not at all, but for one that the exact count may cut.

    Packed rows may begin inside a word.
    """
    partly = 0
    for draws, row in texts():
        found = mask_text(draws, row, share, VOCABULARY, WORD_STARTS)
        real = np.flatnonzero(row > Special.MASK)
        hidden = np.isin(real, found.positions[found.weights > 0])
        words = np.split(hidden, np.flatnonzero(WORD_STARTS[row[real]])) if real.size else []
        cut = sum(word.any() and not word.all() for word in words)
        assert cut <= 1
        partly += cut
    assert 0 < partly < 200
    lone = mask_text(Draws(0), np.array([2, 4, 6, 7, 8, 3], np.int32), 0.7, VOCABULARY, WORD_STARTS)
    assert lone.weights.sum() == 2 and 1 not in lone.positions


@pytest.mark.parametrize(
    "length, share, slots",
    [(59, 0.5, 28), (128, 0.15, 19), (3, 0.15, 1), (32, 1.0, 30), (24, 0.0, 1)],
)
def test_slots_suffice(length, share, slots):
    assert masked_slots(length, share) == slots
