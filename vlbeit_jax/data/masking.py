"""Which patches and word pieces are masked (VL-BEiT).

Masks are made on the host, from the draws of each example. So they do not depend on the device, and
every row of a batch has the same number of masked patches, as arrays of fixed shape need.
"""

import math
from typing import NamedTuple

import numpy as np

from vlbeit_jax.data.draws import Draws
from vlbeit_jax.shapes import Bool, Float, Int
from vlbeit_jax.types import Special

ASPECT = math.log(1 / 0.3)  # Blocks have an aspect ratio between 0.3 and 1 / 0.3 (BEiT).
TRIES_PER_BLOCK = 10
MASK_SHARE, RANDOM_SHARE = 0.8, 0.1  # BERT, section 3.1; the remaining 10% stay as they are.


def blockwise_mask(
    draws: Draws, grid: int, count: int, smallest_block: int
) -> Int[np.ndarray, " M"]:
    """Masks exactly ``count`` patches in blocks (BEiT, algorithm 1, as in BEiT v2's code).

    Args:
      draws: the example's own.
      grid: patches along a side of the image.
      count: patches to mask, from 0 to ``grid**2``.
      smallest_block: patches of the smallest block, while at least as many are missing.

    Returns:
      Sorted row-major positions.
    """
    # A mask is an integer with a bit per patch. To try a block, of which a batch needs thousands,
    # takes a few operations on integers then, and no array.
    mask, missing = 0, count
    while missing > 0:
        block = _new_block(draws, mask, grid, missing, smallest_block)
        if not block:
            break
        mask |= block
        missing = count - mask.bit_count()
    # Blocks may not exceed the count, so the last few patches often fit no block. Single patches
    # make up for them; the paper's algorithm would go over the count, or stop below it.
    masked = _bits(mask, grid)
    visible = np.flatnonzero(~masked)
    masked[visible[draws.choose(visible.size, missing)]] = True
    return np.flatnonzero(masked).astype(np.int32)


def _bits(mask: int, grid: int) -> Bool[np.ndarray, " N"]:
    """Returns the bits of a mask, row by row."""
    patches = grid * grid
    packed = np.frombuffer(mask.to_bytes(-(-patches // 8), "little"), np.uint8)
    return np.unpackbits(packed, count=patches, bitorder="little").astype(bool)


def _new_block(draws: Draws, mask: int, grid: int, budget: int, smallest: int) -> int:
    """Returns the bits of one more block; 0 if none was found.

    Args:
      draws: the example's own.
      mask: a bit per patch that is masked already, row by row.
      grid: patches along a side of the image.
      budget: patches that the block may mask in addition to those that are masked already.
      smallest: patches of the smallest block.
    """
    for _ in range(TRIES_PER_BLOCK):
        # If the budget is below the smallest block, the area lies between the two, and the block
        # fits only where it overlaps masked patches. The logarithm of the aspect ratio is uniform,
        # so that wide and tall blocks are equally likely.
        area = draws.uniform(min(smallest, budget), max(smallest, budget))
        ratio = math.exp(draws.uniform(-ASPECT, ASPECT))
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        # As in the reference code, a block does not reach over the whole image. Since blocks lie
        # inside the image, the centre is masked more often than the edges.
        if height >= grid or width >= grid:
            continue
        top, left = draws.below(grid - height + 1), draws.below(grid - width + 1)
        # A row of the block is ``width`` bits. A product with 1 + 2^grid + 2^(2 grid) + ..., which
        # is a geometric series, repeats it ``height`` times at distances of ``grid`` bits.
        row, repeated = (1 << width) - 1, ((1 << grid * height) - 1) // ((1 << grid) - 1)
        block = (row * repeated) << (top * grid + left)
        if 0 < (block & ~mask).bit_count() <= budget:
            return block
    return 0


class MaskedText(NamedTuple):
    """A text with some pieces replaced, and what has to be predicted.

    Attributes:
      text: word pieces after masking.
      positions: of the pieces to predict, in rising order; unused slots are 0.
      targets: the original pieces there; unused slots are 0.
      weights: 1 for a used slot, 0 for an unused one.
    """

    text: Int[np.ndarray, " T"]
    positions: Int[np.ndarray, " M"]
    targets: Int[np.ndarray, " M"]
    weights: Float[np.ndarray, " M"]


def masked_slots(length: int, share: float) -> int:
    """Returns the slots M that are enough for every row of ``length`` pieces.

    CLS and SEP are part of the length and never masked.
    """
    return max(1, round(share * (length - 2)))


def mask_text(
    draws: Draws,
    text: Int[np.ndarray, " T"],
    share: float,
    vocabulary: int,
    word_starts: Bool[np.ndarray, " V"] | None = None,
) -> MaskedText:
    """Masks ``max(1, round(share * n))`` of the n ordinary pieces of a text.

    Of these, 80% become MASK, 10% a random piece and 10% stay (BERT, section 3.1). Special pieces
    are never masked and never replace another one. A text without ordinary pieces has nothing to
    predict.

    Args:
      draws: the example's own.
      text: word pieces with specials and padding.
      share: of the ordinary pieces that are masked, from 0 to 1.
      vocabulary: number of word pieces, specials included.
      word_starts: for each piece of the vocabulary, whether it starts a word. If given, whole words
        are masked, and the last one is cut where the number of pieces is reached.
    """
    masked = _nothing_masked(text, masked_slots(len(text), share))
    ordinary = np.flatnonzero(text > Special.MASK)  # MASK has the largest id of the specials.
    if ordinary.size == 0:
        return masked
    count = max(1, round(share * ordinary.size))
    if word_starts is None:
        chosen = ordinary[draws.choose(ordinary.size, count)]
    else:
        chosen = _pieces_of_words(draws, ordinary, word_starts[text[ordinary]], count)
    return _hidden(draws, masked, chosen, text, vocabulary)


def caption_slots(length: int, share: float) -> int:
    """Returns the slots M that are enough for every caption of ``length`` pieces."""
    return max(1, min(int(share * length + 0.5), length - 1))


def mask_caption(
    draws: Draws, text: Int[np.ndarray, " T"], share: float, vocabulary: int, whole: bool
) -> MaskedText:
    """Masks the pieces of a caption that is learnt by writing it (BEiT-3).

    Of n pieces, CLS and SEP included, ``share * n`` are masked, rounded, at least one and never
    CLS. SEP is among them, because the network has to learn where a caption ends. Of these, 80%
    become MASK, 10% a random piece and 10% stay.

    Args:
      draws: the example's own.
      text: word pieces with CLS, SEP and padding.
      share: of the pieces that are masked, from 0 to 1.
      vocabulary: number of word pieces, specials included.
      whole: whether the caption ends at SEP. One that was cut there is not learnt to end.
    """
    slots = caption_slots(len(text), share)
    pieces = int((text != Special.PAD).sum()) - (not whole)
    count = caption_slots(pieces, share)
    chosen = 1 + np.array(draws.choose(pieces - 1, count))
    return _hidden(draws, _nothing_masked(text, slots), chosen, text, vocabulary)


def _nothing_masked(text: Int[np.ndarray, " T"], slots: int) -> MaskedText:
    return MaskedText(
        text=text.copy(),
        positions=np.zeros(slots, np.int32),
        targets=np.zeros(slots, np.int32),
        weights=np.zeros(slots, np.float32),
    )


def _hidden(
    draws: Draws,
    masked: MaskedText,
    chosen: Int[np.ndarray, " M"],
    text: Int[np.ndarray, " T"],
    vocabulary: int,
) -> MaskedText:
    """Fills in ``masked`` the pieces at the chosen positions, and returns it."""
    count = len(chosen)
    chosen.sort()  # Before the draws: which piece gets which draw must not depend on their order.
    masked.positions[:count] = chosen
    masked.targets[:count] = text[chosen]
    masked.weights[:count] = 1
    # A replacement is drawn for every position, needed or not. So the number of draws depends on
    # the count alone, and the draws that follow do not depend on what became of each piece.
    fate = np.array([draws.uniform() for _ in range(count)])
    first = Special.MASK + 1
    random = np.array([first + draws.below(vocabulary - first) for _ in range(count)])
    random_or_same = np.where(fate < MASK_SHARE + RANDOM_SHARE, random, text[chosen])
    masked.text[chosen] = np.where(fate < MASK_SHARE, Special.MASK, random_or_same)
    return masked


def _pieces_of_words(
    draws: Draws, ordinary: Int[np.ndarray, " A"], starts: Bool[np.ndarray, " A"], count: int
) -> Int[np.ndarray, " M"]:
    """Returns the positions of the first ``count`` pieces, with the words in random order."""
    # The number of each piece's word. A row that was cut out of a document may begin inside a word,
    # which is then word 0. Otherwise no piece has word 0, and it takes part in the random order
    # without effect.
    word = np.cumsum(starts)
    words = int(word[-1]) + 1
    place = np.array(draws.choose(words, words))  # Of each word, in the random order.
    # The sort is stable, so the pieces of a word stay in order, and the cut is at its end.
    return ordinary[np.argsort(place[word], kind="stable")][:count]
