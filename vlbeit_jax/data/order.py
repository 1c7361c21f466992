"""Decides which record is example ``i``, as a pure function of integers with random access.

It uses no library except NumPy's uint64 arithmetic, so no release can change the order of a run.
"""

import functools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from vlbeit_jax.data.draws import Draws
from vlbeit_jax.shapes import Int

LONGEST = 2**62  # So that a * b of a ``Permutation``, slightly more, still fits into 64 bits.
# Each round changes one half by the other one. With four, a network is as good as random if its
# rounds are (Luby and Rackoff, 1988); ours are plain hashes, so it has twice as many.
ROUNDS = 8
_MASK = 2**64 - 1  # Python's integers do not overflow, as NumPy's do: the mask makes them equal.
# Stafford's variant 13 of the finaliser of MurmurHash3, as in SplitMix64: shifts and factors.
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT = 31


class Permutation:
    """A keyed permutation of 0, ..., ``length - 1`` that computes each place and stores none.

    It is an alternating Feistel network over pairs (left, right) with left < a and right < b, where
    a * b is ``length`` or slightly more. Whatever its rounds compute, it is a permutation, because
    each round only adds a function of one half to the other half, which can be undone. If a result
    is not below ``length``, the network is applied to it again until it is (cycle walking): that is
    a permutation of the numbers below ``length``. Since a is near the square root of ``length``,
    few results are not below it.
    """

    def __init__(self, length: int, *key: str | int | bytes):
        """Makes the permutation of a key.

        Args:
          length: from 1 to 2^62.
          *key: see ``Draws``.

        Raises:
          ValueError: ``length`` is out of range.
        """
        if not 1 <= length <= LONGEST:
            raise ValueError(f"cannot permute {length} places; give 1 to 2^62")
        draws = Draws("permutation", *key)
        self._length = length
        self._left = math.isqrt(length - 1) + 1
        self._right = -(-length // self._left)
        self._keys = [draws.word() for _ in range(ROUNDS)]

    def __len__(self) -> int:
        """The number of places."""
        return self._length

    def __getitem__(self, place: int) -> int:
        """Returns the number at a place."""
        if not 0 <= place < self._length:
            raise IndexError(place)
        number = self._once(place)
        while number >= self._length:
            number = self._once(number)
        return number

    def at(self, places: Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
        """Returns the number at each of several places, as ``self[place]`` does for one."""
        if places.size and not 0 <= places.min() <= places.max() < self._length:
            raise IndexError(
                f"places {places.min()} to {places.max()} are not all below {self._length}, the "
                "length of this permutation"
            )
        numbers = self._once_each(places.astype(np.uint64))
        while (outside := numbers >= self._length).any():
            numbers[outside] = self._once_each(numbers[outside])
        return numbers.astype(np.int64)

    def _once(self, place: int) -> int:
        """Applies the network to a number below a * b."""
        left, right = divmod(place, self._right)
        for number, key in enumerate(self._keys):
            if number % 2:
                right = (right + _mixed((left + key) & _MASK)) % self._right
            else:
                left = (left + _mixed((right + key) & _MASK)) % self._left
        return left * self._right + right

    def _once_each(self, places: np.ndarray) -> np.ndarray:
        """Does the same for an array of uint64."""
        a, b = np.uint64(self._left), np.uint64(self._right)
        left, right = places // b, places % b
        for number, key in enumerate(self._keys):
            # A hash is reduced before it is added, or the sum could exceed 64 bits.
            if number % 2:
                right = (right + _mixed_each(left + np.uint64(key)) % b) % b
            else:
                left = (left + _mixed_each(right + np.uint64(key)) % a) % a
        return left * b + right


def _mixed(word: int) -> int:
    """Hashes 64 bits: each bit of the result depends on all of them."""
    for shift, factor in _MIX:
        word = ((word ^ (word >> shift)) * factor) & _MASK
    return word ^ (word >> _LAST_SHIFT)


def _mixed_each(words: np.ndarray) -> np.ndarray:
    """Does the same for an array of uint64."""
    for shift, factor in _MIX:
        words = (words ^ (words >> np.uint64(shift))) * np.uint64(factor)
    return words ^ (words >> np.uint64(_LAST_SHIFT))


class Epochs:
    """Maps positions 0, 1, 2, ... without end to record numbers, in a new order every epoch."""

    def __init__(self, length: int, *key: str | int | bytes):
        """Takes the number of records, and the key of the orders."""
        self._length, self._key = length, key

    def __getitem__(self, position: int) -> int:
        """Returns the number of the record at a position."""
        epoch, place = divmod(position, self._length)
        return _epoch(self._length, epoch, self._key)[place]


# The rows of a batch are of few epochs, and it takes time to make the keys of a permutation.
@functools.lru_cache(maxsize=256)
def _epoch(length: int, epoch: int, key: tuple[str | int | bytes, ...]) -> Permutation:
    return Permutation(length, "epoch", epoch, *key)


class _Node(NamedTuple):
    """A node whose two parts share its examples; a leaf has one source and no parts."""

    weight: Fraction
    source: int
    parts: Any = ()


class Interleave:
    """Merges sources into one sequence, in proportion to their weights at every point of it.

    Example ``i`` goes down a binary tree of sources. Of a node's first n examples, its first part
    gets n times its share, rounded to the nearest integer. So any n can be computed without those
    before it. All arithmetic is in exact integers.

    After any number of examples, each of up to four sources is within one example of its share.
    With more sources each is within ``largest_error``, a bound that follows from the tree. It was
    at most 1.2 in all cases that we tried.
    """

    def __init__(self, weights: Sequence[float]):
        """Takes the weights of sources 0, 1, ...; a decimal such as 0.1 counts as exactly 1/10.

        Raises:
          ValueError: there is no weight, or one is not positive and finite.
        """
        if not weights or not all(weight > 0 and math.isfinite(weight) for weight in weights):
            raise ValueError(f"weights {list(weights)}: give one or more positive finite numbers")
        exact = [Fraction(str(weight)) for weight in weights]
        leaves = [_Node(weight, source) for source, weight in enumerate(exact)]
        # Rounding errors add up along a path from the root, so the tree should be flat, and its
        # heavy sources near the root. Each leaf goes to the place that is best for the tree so far;
        # to try all trees would take too long for a dozen sources.
        heavy_first = sorted(leaves, key=lambda leaf: (-leaf.weight, leaf.source))
        tree = heavy_first[0]
        for leaf in heavy_first[1:]:
            tree = min(_insertions(tree, leaf), key=_error)
        self.largest_error = _error(tree) / 2
        self._tree = _as_integers(tree)

    def __getitem__(self, index: int) -> tuple[int, int]:
        """Returns the source of example ``index``, and how many of its examples came before."""
        node = self._tree
        while not isinstance(node, int):
            share, whole, first, second = node
            # How many of the node's examples its first part gets up to this one, without and with
            # it. If the number rises, this example is one of them.
            before = _rounded(index * share, whole)
            is_first = _rounded((index + 1) * share, whole) > before
            node, index = (first, before) if is_first else (second, index - before)
        return node, index

    def counts(self, number: int) -> dict[int, int]:
        """Returns how many of the first ``number`` examples come from each source."""
        counts: dict[int, int] = {}
        waiting = [(self._tree, number)]
        while waiting:
            node, count = waiting.pop()
            if isinstance(node, int):
                counts[node] = count
                continue
            share, whole, first, second = node
            part = _rounded(count * share, whole)
            waiting += [(first, part), (second, count - part)]
        return counts


def _rounded(numerator: int, denominator: int) -> int:
    """Rounds a fraction to the nearest integer, halves up."""
    return (2 * numerator + denominator) // (2 * denominator)


def _as_integers(node: _Node) -> Any:
    """Converts a leaf to its source, and a node to (numerator, denominator, part, part).

    The fraction is the first part's share of the node's examples.
    """
    if not node.parts:
        return node.source
    share = node.parts[0].weight / node.weight
    return (share.numerator, share.denominator, *map(_as_integers, node.parts))


def _insertions(tree: _Node, leaf: _Node):
    """Yields every tree that results from putting a leaf beside one of the nodes."""
    yield _Node(tree.weight + leaf.weight, -1, (tree, leaf))
    if tree.parts:
        first, second = tree.parts
        for each in _insertions(first, leaf):
            yield _Node(each.weight + second.weight, -1, (each, second))
        for each in _insertions(second, leaf):
            yield _Node(first.weight + each.weight, -1, (first, each))


def _error(node: _Node, above: float = 0.0) -> float:
    """Returns twice the largest error of a leaf.

    Each level adds an error of 1/2, and a part inherits its share of the error above it.
    """
    if not node.parts:
        return above
    return max(_error(part, 1 + float(part.weight / node.weight) * above) for part in node.parts)
