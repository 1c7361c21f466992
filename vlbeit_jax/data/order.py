"""Which record is example ``i``: defined here, in integers, as a pure function with random access.

No library takes part but NumPy's uint64 arithmetic, so no release can change the order of a run.
"""

import functools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from vlbeit_jax.data.draws import Draws
from vlbeit_jax.shapes import Int

LONGEST = 2**62
ROUNDS = 8
_MASK = 2**64 - 1
# Stafford's variant 13 of the finaliser of MurmurHash3, as in SplitMix64: shifts and factors.
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT = 31


class Permutation:
    """A keyed permutation of 0, ..., ``length - 1`` that is computed place by place and never stored.

    It is an alternating Feistel network over pairs (left, right) with left < a and right < b, where
    a * b is ``length`` or slightly more; what leaves the range walks on along its cycle until it is
    back inside. Since a is near the square root of ``length``, a second walk is rare.
    """

    def __init__(self, length: int, *key: str | int | bytes):
        """The permutation of a key.

        Args:
          length: from 1 to 2^62.
          *key: see ``Draws``.

        Raises:
          ValueError: ``length`` is out of range.
        """
        if not 1 <= length <= LONGEST:
            raise ValueError(f"a permutation of {length} places; 1 to 2^62 are possible")
        draws = Draws("permutation", *key)
        self._length = length
        self._left = math.isqrt(length - 1) + 1
        self._right = -(-length // self._left)
        self._keys = [draws.word() for _ in range(ROUNDS)]

    def __len__(self) -> int:
        """How many places there are."""
        return self._length

    def __getitem__(self, place: int) -> int:
        """What stands at a place."""
        if not 0 <= place < self._length:
            raise IndexError(place)
        found = self._once(place)
        while found >= self._length:
            found = self._once(found)
        return found

    def at(self, places: Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
        """What stands at each of some places; equal to asking for them one by one."""
        if places.size and not 0 <= places.min() <= places.max() < self._length:
            raise IndexError(f"places from {places.min()} to {places.max()} of {self._length}")
        found = self._once_each(places.astype(np.uint64))
        while (outside := found >= self._length).any():
            found[outside] = self._once_each(found[outside])
        return found.astype(np.int64)

    def _once(self, place: int) -> int:
        left, right = divmod(place, self._right)
        for number, key in enumerate(self._keys):
            if number % 2:
                right = (right + _mixed(left + key & _MASK)) % self._right
            else:
                left = (left + _mixed(right + key & _MASK)) % self._left
        return left * self._right + right

    def _once_each(self, places: np.ndarray) -> np.ndarray:
        a, b = np.uint64(self._left), np.uint64(self._right)
        left, right = places // b, places % b
        for number, key in enumerate(self._keys):
            if number % 2:
                right = (right + _mixed_each(left + np.uint64(key)) % b) % b
            else:
                left = (left + _mixed_each(right + np.uint64(key)) % a) % a
        return left * b + right


def _mixed(word: int) -> int:
    for shift, factor in _MIX:
        word = (word ^ word >> shift) * factor & _MASK
    return word ^ word >> _LAST_SHIFT


def _mixed_each(words: np.ndarray) -> np.ndarray:
    for shift, factor in _MIX:
        words = (words ^ words >> np.uint64(shift)) * np.uint64(factor)
    return words ^ words >> np.uint64(_LAST_SHIFT)


class Epochs:
    """Records in a new order every epoch: position 0, 1, 2, ... without end to the number of a record."""

    def __init__(self, length: int, *key: str | int | bytes):
        """The orders of a key, for ``length`` records."""
        self._length, self._key = length, key

    def __getitem__(self, position: int) -> int:
        """The record at a position."""
        epoch, place = divmod(position, self._length)
        return _epoch(self._length, epoch, self._key)[place]


@functools.lru_cache(maxsize=256)
def _epoch(length: int, epoch: int, key: tuple[str | int | bytes, ...]) -> Permutation:
    return Permutation(length, "epoch", epoch, *key)


class _Node(NamedTuple):
    """Sources that share the examples of a node among them; a leaf has one source and no parts."""

    weight: Fraction
    source: int
    parts: Any = ()


class Interleave:
    """Several sources as one sequence, in proportion to their weights at every point of it.

    Example ``i`` goes down a binary tree of sources: of the first n examples of a node, its first part
    gets n times its share, rounded to the nearest integer, so that any n is as easy as the next one.
    All of it is in exact integers.

    After any number of examples, up to four sources are each within one example of their share. More
    are within ``largest_error``, which the tree's form proves and is at most 1.2 in all that was tried.
    """

    def __init__(self, weights: Sequence[float]):
        """Sources 0, 1, ... with these weights; a decimal fraction such as 0.1 is taken as exactly that.

        Raises:
          ValueError: there is none, or one is not positive and finite.
        """
        if not weights or not all(weight > 0 and math.isfinite(weight) for weight in weights):
            raise ValueError(f"weights {list(weights)}: needed are positive finite numbers")
        exact = [Fraction(str(weight)) for weight in weights]
        leaves = [_Node(weight, source) for source, weight in enumerate(exact)]
        heavy_first = sorted(leaves, key=lambda leaf: (-leaf.weight, leaf.source))
        tree = heavy_first[0]
        for leaf in heavy_first[1:]:
            tree = min(_insertions(tree, leaf), key=_error)
        self.largest_error = _error(tree) / 2
        self._tree = _as_integers(tree)

    def __getitem__(self, index: int) -> tuple[int, int]:
        """The source of example ``index``, and how many of its examples came before."""
        node = self._tree
        while not isinstance(node, int):
            first, both, one, other = node
            before, after = _rounded(index * first, both), _rounded((index + 1) * first, both)
            node, index = (one, before) if after > before else (other, index - before)
        return node, index


def _rounded(above: int, below: int) -> int:
    """The nearest integer to a fraction; a half goes up."""
    return (2 * above + below) // (2 * below)


def _as_integers(node: _Node) -> Any:
    """A leaf as its source; a node as the first part's share (numerator, denominator) and both parts."""
    if not node.parts:
        return node.source
    share = node.parts[0].weight / node.weight
    return (share.numerator, share.denominator, *map(_as_integers, node.parts))


def _insertions(tree: _Node, leaf: _Node):
    """Every tree that comes of putting a leaf beside one of the nodes."""
    yield _Node(tree.weight + leaf.weight, -1, (tree, leaf))
    if tree.parts:
        one, other = tree.parts
        for each in _insertions(one, leaf):
            yield _Node(each.weight + other.weight, -1, (each, other))
        for each in _insertions(other, leaf):
            yield _Node(one.weight + each.weight, -1, (one, each))


def _error(node: _Node, above: float = 0.0) -> float:
    """Twice the largest error of a leaf: at every level 1/2, of which a part gets its share further down."""
    if not node.parts:
        return above
    return max(_error(part, 1 + float(part.weight / node.weight) * above) for part in node.parts)
