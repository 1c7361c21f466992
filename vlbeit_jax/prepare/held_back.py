"""Small sets, of which a hash may hold back nothing: they are noticed, and split again."""

import collections
from collections.abc import Callable, Iterator
from typing import TypeVar

from vlbeit_jax.data.identity import VALIDATION
from vlbeit_jax.prepare.apart import Placed

# Two held-back pairs are the fewest of which each can have a wrong partner. In a set that is not
# small, a tenth always holds more.
FEWEST, LARGEST_SHARE, SMALL = 2, 0.5, 1000
Result = TypeVar("Result")


class FewHeldBackError(Exception):
    """The hash has held back fewer records of a small set than are wanted."""


def with_larger_share(build: Callable[[float, int], Result], validation_share: float) -> Result:
    """Builds a set, and builds it again with twice the share while too little is held back.

    A hash holds back none of ten pictures in one of three cases. A larger share holds back
    everything that a smaller one does, so sets of the same files still agree.

    Args:
      build: from the share, and the fewest records to hold back, to the result.
      validation_share: the first share; 0 stays 0.
    """
    share = validation_share
    while True:
        try:
            return build(share, FEWEST if 0 < share < LARGEST_SHARE else 0)
        except FewHeldBackError:
            share = min(2 * share, LARGEST_SHARE)


def require_held_back(
    records: Iterator[Placed], fewest: int, by_hash: Callable[[], bool]
) -> Iterator[Placed]:
    """Yields records, and checks at their end that enough of a small set are held back.

    Args:
      records: all of the set, with the split that a hash or the source has given them.
      fewest: that have to be held back; 0: any number will do.
      by_hash: whether a hash has placed all of them. Another share changes nothing where the source
        states the splits.

    Raises:
      FewHeldBackError: fewer than ``fewest`` are.
    """
    counts: collections.Counter = collections.Counter()
    for split, record in records:
        counts[split] += 1
        yield split, record
    small = 2 * fewest <= counts.total() < SMALL
    if small and counts[VALIDATION] < fewest and by_hash():
        raise FewHeldBackError
