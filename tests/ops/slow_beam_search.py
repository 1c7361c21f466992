"""Beam search over lists of texts, one row at a time, as the released code of BEiT-3 keeps them."""

import numpy as np

from vlbeit_jax.types import Special

SEP, NEVER = Special.SEP, {Special.PAD, Special.CLS, Special.MASK}


def slow_beam_search(shares, length, beams, penalty):
    """Score, log-probability and text (CLS, pieces, SEP) of the best text.

    Args:
      shares: from a text so far to log-probabilities of the next piece, one per piece.
      length: positions, with CLS and SEP.
      beams: unfinished texts; 1 stops at the first SEP.
      penalty: power of the number of positions that a log-probability is divided by.
    """
    alive, best = [(0.0, [Special.CLS])], (-np.inf, 0.0, None)
    for position in range(1, length):
        longer = []
        for total, text in alive:
            found = shares(text)
            allowed = [SEP] if position == length - 1 else range(len(found))
            longer += [(total + float(found[p]), [*text, p]) for p in allowed if p not in NEVER]
        alive = []
        for total, text in sorted(longer, key=lambda each: -each[0]):
            if text[-1] == SEP:
                best = max(best, (total / len(text) ** penalty, total, text), key=lambda x: x[0])
                if beams == 1:
                    return best
            else:
                alive.append((total, text))
            if len(alive) == beams:
                break
    return best


def padded(text, length):
    return [*text, *[Special.PAD] * (length - len(text))]
