"""Draws are pinned to the bit, even, and of nothing but their key."""

import numpy as np
import pytest

from vlbeit_jax.data.draws import WORDS, Draws, framed


def test_draws_are_these_for_ever():
    draws = Draws("training", 0, "pair", 7)
    assert [f"{draws.word():016x}" for _ in range(4)] == WORDS_OF_SEVEN
    draws = Draws("a")
    assert [
        draws.uniform(),
        draws.uniform(-1, 3),
        draws.below(10),
        draws.below(2**64),
        *draws.choose(9, 4),
    ] == MIXED


WORDS_OF_SEVEN = ["601142891c9c4e57", "99f1da83e1d4a0d3", "23b8b01379a757ca", "83e785adfdb53b72"]
MIXED = [0.9350205751233747, 1.5599977011483008, 6, 3668065853224215014, 0, 5, 4, 2]


def test_the_sequence_goes_on_beyond_a_block_and_does_not_repeat():
    draws = Draws(0)
    words = [draws.word() for _ in range(5 * WORDS + 1)]
    assert len(set(words)) == len(words)
    again = Draws(0)
    assert [again.word() for _ in words] == words


def test_keys_are_framed():
    keys = [
        (),
        ("",),
        (b"",),
        ("a", "b"),
        ("ab",),
        ("a/b",),
        (b"ab",),
        (1, 2),
        (12,),
        ("1", "2"),
        (1, "2"),
        ("a", ""),
        ("", "a"),
    ]
    assert (
        len({framed(*key) for key in keys})
        == len({Draws(*key).word() for key in keys})
        == len(keys)
    )
    assert framed("ä\ud800", -1, 2**70)  # Whatever an id holds.


def test_neighbouring_keys_share_nothing():
    bits = np.array(
        [[draws.word() for _ in range(8)] for draws in map(Draws, range(2000))], np.uint64
    ).view(np.uint8)
    ones = np.unpackbits(bits, axis=1)
    assert np.abs(ones.mean(axis=0) - 0.5).max() < 5 * 0.5 / np.sqrt(2000)
    changes = (ones[1:] != ones[:-1]).mean(axis=1)
    assert abs(changes.mean() - 0.5) < 0.005 and 0.35 < changes.min() and changes.max() < 0.65


def test_uniform_numbers_fill_their_range_evenly():
    draws = Draws("uniform")
    found = np.array([draws.uniform(-2, 6) for _ in range(20_000)])
    assert found.min() >= -2 and found.max() < 6
    counts = np.histogram(found, 20, (-2, 6))[0]
    assert (
        (counts - 1000) ** 2 / 1000
    ).sum() < 45  # Chi square of 19 degrees of freedom: p = 0.0007.


@pytest.mark.parametrize("count", [1, 2, 3, 7, 196])
def test_integers_are_below_their_bound_and_even(count):
    draws = Draws("below", count)
    counts = np.bincount([draws.below(count) for _ in range(500 * count)], minlength=count)
    assert len(counts) == count and ((counts - 500) ** 2 / 500).sum() < count + 5 * np.sqrt(
        2 * count
    )


def test_words_that_would_make_some_integers_likelier_are_drawn_again(monkeypatch):
    """Of 2^64 words, 0 is the one too many for 3; the product's lower half shows it."""
    words = iter([0, 2**63])
    monkeypatch.setattr(Draws, "word", lambda self: next(words))
    assert Draws().below(3) == 1 and not list(words)


@pytest.mark.parametrize("count, taken", [(0, 0), (1, 1), (5, 0), (5, 2), (5, 5)])
def test_chosen_ones_differ_and_every_order_is_as_likely(count, taken):
    found = [tuple(Draws("choose", seed).choose(count, taken)) for seed in range(3000)]
    assert all(len(set(each)) == taken and set(each) <= set(range(count)) for each in found)
    orders = np.prod(np.arange(count, count - taken, -1))
    counts = np.unique(np.array(found, np.int64).reshape(3000, taken), axis=0, return_counts=True)[
        1
    ]
    assert len(counts) == orders and (
        (counts - 3000 / orders) ** 2 / (3000 / orders)
    ).sum() < orders + 5 * np.sqrt(2 * orders)


def test_what_cannot_be_drawn_is_an_error():
    for count in (0, -1, 2**64 + 1):
        with pytest.raises(ValueError, match=str(count)):
            Draws().below(count)
    with pytest.raises(ValueError, match="6 different numbers of 5"):
        Draws().choose(5, 6)
