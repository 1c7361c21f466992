"""Orders of examples are permutations, mixtures are exact, and any place is reached at once."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from vlbeit_jax.data.order import Epochs, Interleave, Permutation

FAR = 10**12


def whole(length, *key):
    return Permutation(length, *key).at(np.arange(length))


@pytest.mark.parametrize(
    "lengths",
    [range(1, 200), (255, 256, 257, 1000, 4095, 4097, 65_537, 1_000_003)],
    ids=["small", "large"],
)
def test_every_place_is_taken_once(lengths):
    for length in lengths:
        assert np.array_equal(np.sort(whole(length, 3)), np.arange(length))


@pytest.mark.parametrize("length", [1, 2, 60, 3182, 2**32, 2**40, 2**40 + 12345, 2**62])
def test_one_by_one_is_as_all_at_once(length):
    found = Permutation(length, "seed", 1)
    places = np.unique(
        np.concatenate([np.arange(201) * ((length - 1) // 200), np.arange(min(length, 100))])
    )
    at_once = found.at(places)
    assert at_once.tolist() == [found[int(place)] for place in places]
    assert (
        len(set(at_once.tolist())) == len(places) and at_once.min() >= 0 and at_once.max() < length
    )


def test_the_permutation_is_this_one_for_ever():
    assert whole(16, 0).tolist() == OF_SIXTEEN
    assert [Permutation(2**40, 0)[place] for place in (0, 1, 2**39)] == FAR_ONES


OF_SIXTEEN = [2, 9, 12, 10, 8, 4, 7, 11, 6, 0, 14, 1, 5, 13, 3, 15]
FAR_ONES = [454497047297, 971236327145, 450045074276]


@pytest.mark.parametrize("length", [2, 3, 5, 7, 16, 40])
def test_every_record_is_as_likely_at_every_place(length):
    counts = np.zeros((length, length))
    for seed in range(100 * length):
        counts[np.arange(length), whole(length, seed)] += 1
    chi = ((counts - 100) ** 2 / 100).sum(axis=1)  # Of length - 1 degrees of freedom, per place.
    assert chi.max() < length + 6 * np.sqrt(2 * length)


def test_all_orders_of_few_records_occur():
    assert len({tuple(whole(4, seed)) for seed in range(2000)}) == 24


def test_neighbours_are_torn_apart():
    found = whole(100_000, 5)
    steps = np.abs(np.diff(found))
    assert (steps < 10).mean() < 0.001 and np.abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 0.02


def test_places_out_of_range_are_errors():
    found = Permutation(5, 0)
    for place in (-1, 5):
        with pytest.raises(IndexError):
            found[place]
        with pytest.raises(IndexError):
            found.at(np.array([0, place]))
    for length in (0, 2**62 + 1):
        with pytest.raises(ValueError, match=str(length)):
            Permutation(length, 0)


def test_epochs_are_other_permutations_and_never_end():
    epochs = Epochs(60, 0, "image")
    orders = [[epochs[60 * epoch + place] for place in range(60)] for epoch in (0, 1, 2, 10**9)]
    assert all(sorted(order) == list(range(60)) for order in orders)
    others = [
        [Epochs(60, *key)[place] for place in range(60)] for key in ((1, "image"), (0, "pair"))
    ]
    for one, other in itertools.combinations(orders + others, 2):
        assert np.mean(np.array(one) == other) < 0.2


WEIGHTS = [
    (1,),
    (3, 1),
    (0.1, 0.9),
    (1, 1, 1),
    (3182, 4_000_001, 77),
    (0.7, 0.1, 0.1, 0.1),
    (0.5, 0.25, 0.125, 0.125),
    (1e-6, 1, 1, 1),
    (2_800_000, 830_000, 113_000, 108_000),
]
MANY = [(1,) * 7, (0.55, 0.2, 0.1, 0.1, 0.05), (8, 7, 6, 5, 4, 3, 2, 1), (0.9, *(0.01,) * 10)]


@pytest.mark.parametrize("start", [0, FAR])
@pytest.mark.parametrize("weights", WEIGHTS + MANY, ids=str)
def test_every_prefix_has_the_shares_that_were_asked_for(weights, start):
    mix = Interleave(weights)
    exact = [Fraction(str(weight)) for weight in weights]
    assert mix.largest_error <= (1 if len(weights) <= 4 else 1.2)
    seen = {}
    for index in range(start, start + 3000):
        source, number = mix[index]
        assert number == seen.get(
            source, number
        )  # Each source's examples follow each other without a gap.
        seen[source] = number + 1
        share = exact[source] / sum(exact)
        assert abs(number + 1 - share * (index + 1)) <= mix.largest_error
        for other, count in seen.items():
            assert abs(count - exact[other] / sum(exact) * (index + 1)) <= mix.largest_error
    if not start:
        assert sum(seen.values()) == 3000


def test_a_mixture_does_not_depend_on_how_its_weights_are_scaled():
    one, other = Interleave((0.3, 0.7)), Interleave((3, 7))
    assert [one[i] for i in range(1000)] == [other[i] for i in range(1000)]


@pytest.mark.parametrize(
    "weights", [(), (1, 0), (1, -1), (float("nan"),), (float("inf"), 1)], ids=str
)
def test_other_weights_are_refused(weights):
    with pytest.raises(ValueError, match="weights"):
        Interleave(weights)
