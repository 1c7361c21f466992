"""Small sets, of which a hash may hold out nothing: they are noticed, and split again."""

from collections.abc import Callable, Mapping
from typing import TypeVar

from vlbeit_jax.data.identity import VALIDATION

# Two held-out pairs are the fewest of which each can have a wrong partner. In a set that is not
# small, a tenth always holds more.
FEWEST, LARGEST_SHARE, SMALL = 2, 0.5, 1000
Result = TypeVar("Result")


class FewHeldOutError(Exception):
    """The hash has held out fewer records of a small set than are wanted."""


def with_larger_share(build: Callable[[float, int], Result], validation_share: float) -> Result:
    """Builds a set, and builds it again with twice the share while too little is held out.

    A hash holds out none of ten pictures in one of three cases. A larger share holds out
    everything that a smaller one does, so sets of the same files still agree.

    Args:
      build: from the share, and the fewest records to hold out, to the result.
      validation_share: the first share; 0 stays 0.
    """
    share = validation_share
    while True:
        try:
            return build(share, FEWEST if 0 < share < LARGEST_SHARE else 0)
        except FewHeldOutError:
            share = min(2 * share, LARGEST_SHARE)


def require_held_out(counts: Mapping[str, int], fewest: int, stated: int) -> None:
    """Checks that enough records of a small set are held out.

    Args:
      counts: records by split, as a hash or the source has placed them.
      fewest: that have to be held out; 0: any number will do.
      stated: how many the source has placed. Another share changes nothing then.

    Raises:
      FewHeldOutError: fewer than ``fewest`` are.
    """
    small = 2 * fewest <= sum(counts.values()) < SMALL
    if small and counts.get(VALIDATION, 0) < fewest and not stated:
        raise FewHeldOutError
