"""Which patches and word pieces are hidden: made on the host, from the draws of each example (spec sections 2.2, 2.3)."""

import math
from typing import NamedTuple

import numpy as np

from vlbeit_jax.data.draws import Draws
from vlbeit_jax.shapes import Bool, Float, Int
from vlbeit_jax.types import Special

ASPECT = math.log(1 / 0.3)
TRIES_PER_BLOCK = 10
MASK_SHARE, RANDOM_SHARE = 0.8, 0.1


def blockwise_mask(
    draws: Draws, grid: int, count: int, smallest_block: int
) -> Int[np.ndarray, "M"]:
    """Exactly ``count`` patches of a ``grid`` x ``grid`` image, in rectangles of random area and aspect (BEiT v2).

    Blocks are placed until the count is reached or none fits; then single random patches are added.

    Returns:
      Sorted row-major positions.
    """
    mask = np.zeros((grid, grid), bool)
    while (missing := count - int(mask.sum())) > 0 and _place_block(
        draws, mask, missing, smallest_block
    ):
        pass
    visible = np.flatnonzero(~mask)
    mask.ravel()[visible[draws.choose(visible.size, count - int(mask.sum()))]] = True
    return np.flatnonzero(mask).astype(np.int32)


def _place_block(draws: Draws, mask: Bool[np.ndarray, "G G"], budget: int, smallest: int) -> bool:
    """Hides one rectangle with between 1 and ``budget`` patches that were visible; False if none was found."""
    grid = mask.shape[0]
    for _ in range(TRIES_PER_BLOCK):
        area = draws.uniform(min(smallest, budget), max(smallest, budget))
        ratio = math.exp(draws.uniform(-ASPECT, ASPECT))
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if height >= grid or width >= grid:
            continue
        top, left = draws.below(grid - height + 1), draws.below(grid - width + 1)
        block = mask[top : top + height, left : left + width]
        if 0 < block.size - int(block.sum()) <= budget:
            block[:] = True
            return True
    return False


class MaskedText(NamedTuple):
    """A corrupted text and what has to be found again.

    Attributes:
      text: word pieces with some replaced.
      positions: where a piece must be predicted; unused slots are 0.
      targets: the original pieces there; unused slots are 0.
      weights: 1 for a used slot, 0 for an unused one.
    """

    text: Int[np.ndarray, "T"]
    positions: Int[np.ndarray, "M"]
    targets: Int[np.ndarray, "M"]
    weights: Float[np.ndarray, "M"]


def masked_slots(length: int, share: float) -> int:
    """Slots M that suffice for every text of ``length`` pieces, CLS and SEP included."""
    return max(1, round(share * (length - 2)))


def mask_text(
    draws: Draws,
    text: Int[np.ndarray, "T"],
    share: float,
    vocabulary: int,
    word_starts: Bool[np.ndarray, "V"] | None = None,
) -> MaskedText:
    """Hides ``max(1, round(share * n))`` of the n real pieces: 80% become MASK, 10% another piece, 10% stay.

    Specials are never hidden, and never drawn as a replacement. A text without real pieces has nothing to predict.

    Args:
      draws: the example's own.
      text: word pieces with specials and padding.
      share: part of the real pieces that is hidden.
      vocabulary: number of word pieces; replacements are drawn from the ordinary ones.
      word_starts: per piece, whether it opens a word; given, all pieces of a word are hidden together, as long as the
        count allows (the last word may be cut).
    """
    slots = masked_slots(len(text), share)
    found = MaskedText(
        text.copy(),
        np.zeros(slots, np.int32),
        np.zeros(slots, np.int32),
        np.zeros(slots, np.float32),
    )
    real = np.flatnonzero(text > Special.MASK)
    if real.size == 0:
        return found
    count = max(1, round(share * real.size))
    if word_starts is None:
        chosen = real[draws.choose(real.size, count)]
    else:
        words = np.cumsum(word_starts[text[real]])
        order = np.array(draws.choose(int(words[-1]) + 1, int(words[-1]) + 1))
        chosen = real[np.argsort(order[words], kind="stable")][:count]
    chosen.sort()
    found.positions[:count], found.targets[:count], found.weights[:count] = chosen, text[chosen], 1
    draw = np.array([draws.uniform() for _ in range(count)])
    ordinary = Special.MASK + 1
    replacement = np.array([ordinary + draws.below(vocabulary - ordinary) for _ in range(count)])
    kept_or_random = np.where(draw < MASK_SHARE + RANDOM_SHARE, replacement, text[chosen])
    found.text[chosen] = np.where(draw < MASK_SHARE, Special.MASK, kept_or_random)
    return found
