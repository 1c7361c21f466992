"""Beam search for texts that are predicted piece by piece, at a mask token (BEiT-3's captioning).

All shapes are fixed, so one program serves every text: a position that is not reached yet holds
padding. Rows do not depend on each other.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vlbeit_jax.shapes import Array, Bool, Float, Int
from vlbeit_jax.types import Special

# What no text can contain. The unknown piece is a piece like any other.
NEVER = (Special.PAD, Special.CLS, Special.MASK)
# From texts, whose masked position is to be predicted, and that position to log-probabilities.
Predict = Callable[[Int[Array, "B beams T"], Int[Array, ""]], Float[Array, "B beams V"]]


class Found(NamedTuple):
    """The best text of each row.

    Attributes:
      text: CLS, pieces, SEP, padding.
      log_probability: of its pieces and SEP together, in nats.
    """

    text: Int[Array, "B T"]
    log_probability: Float[Array, " B"]


@dataclasses.dataclass(frozen=True)
class Search:
    """How texts are searched for.

    Attributes:
      length: T, the positions of a text, with CLS and SEP.
      beams: unfinished texts that are kept for each row; 1: the likeliest piece each time, until it
        is SEP.
      penalty: a finished text of n positions, with CLS and SEP, is judged by its log-probability
        divided by n to this power. So 0 prefers short texts.
    """

    length: int
    beams: int = 3
    penalty: float = 0.6

    def __call__(self, predict: Predict, rows: int) -> Found:
        """Returns the best text of each row.

        The last position can only hold SEP. A step keeps the likeliest unfinished texts, as many
        as there are beams. Those that finish count if they are likelier than the last of these. A
        row is done when no unfinished text can become better than its best finished one.

        Args:
          predict: see ``Predict``; it may look at pieces before the position only.
          rows: B.
        """
        start = _State.of(rows, self)

        def unfinished(state: _State) -> Bool[Array, ""]:
            return (state.position < self.length) & ~state.done.all()

        end = jax.lax.while_loop(unfinished, lambda state: self._step(state, predict), start)
        return Found(end.best, end.best_sum)

    def _step(self, state: "_State", predict: Predict) -> "_State":
        position = state.position
        shown = state.text.at[:, :, position].set(Special.MASK)
        shares = _allowed(predict(shown, position), position == self.length - 1)
        # Each text has one candidate that ends, so enough of the others are among twice as many.
        sums, beam, piece = _likeliest(state.sums[..., None] + shares, 2 * self.beams)
        ends = piece == Special.SEP
        unfinished_before = jnp.cumsum(~ends, axis=1) - ~ends
        state = self._finished(state, sums, beam, ends & (unfinished_before < self.beams))
        # A stable sort keeps the order of those that do not end.
        kept = jnp.argsort(ends, axis=1, stable=True)[:, : self.beams]
        sums, beam, piece = (_pick(each, kept) for each in (sums, beam, piece))
        text = _pick(state.text, beam).at[:, :, position].set(piece)
        # A log-probability only falls. Of negative numbers, the longest text makes the most.
        ahead = sums[:, 0] / self._size(self.length)
        done = state.done | (state.best_score >= ahead)
        if self.beams == 1:
            done |= ends[:, 0]
        return dataclasses.replace(state, position=position + 1, text=text, sums=sums, done=done)

    def _finished(
        self,
        state: "_State",
        sums: Float[Array, "B found"],
        beam: Int[Array, "B found"],
        ends: Bool[Array, "B found"],
    ) -> "_State":
        """Returns the state with the best text that ends here, if it is better than the best."""
        sums = jnp.where(ends, sums, -jnp.inf)
        first = jnp.argmax(sums, axis=1)[:, None]
        total = _pick(sums, first)[:, 0]
        score = total / self._size(state.position + 1)
        better = (score > state.best_score) & ~state.done
        text = _pick(state.text, _pick(beam, first))[:, 0].at[:, state.position].set(Special.SEP)
        return dataclasses.replace(
            state,
            best=jnp.where(better[:, None], text, state.best),
            best_sum=jnp.where(better, total, state.best_sum),
            best_score=jnp.where(better, score, state.best_score),
        )

    def _size(self, positions: int | Int[Array, ""]) -> Float[Array, ""]:
        return jnp.asarray(positions, jnp.float32) ** self.penalty


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _State:
    """Unfinished texts with their log-probabilities, and the best finished text of each row."""

    position: Int[Array, ""]
    text: Int[Array, "B beams T"]
    sums: Float[Array, "B beams"]
    best: Int[Array, "B T"]
    best_sum: Float[Array, " B"]
    best_score: Float[Array, " B"]
    done: Bool[Array, " B"]

    @classmethod
    def of(cls, rows: int, search: Search) -> "_State":
        """Returns CLS alone, in one beam: otherwise all beams would be alike for ever."""
        text = jnp.full((rows, search.beams, search.length), Special.PAD, jnp.int32)
        text = text.at[:, :, 0].set(Special.CLS)
        worst = jnp.full(rows, -jnp.inf)
        sums = jnp.full((rows, search.beams), -jnp.inf).at[:, 0].set(0)
        position, done = jnp.int32(1), jnp.zeros(rows, bool)
        return cls(position, text, sums, text[:, 0], worst, worst, done)


def _allowed(shares: Float[Array, "B beams V"], last: Bool[Array, ""]) -> Float[Array, "B beams V"]:
    pieces = jnp.arange(shares.shape[-1])
    never = jnp.isin(pieces, jnp.array(NEVER)) | (last & (pieces != Special.SEP))
    return jnp.where(never, -jnp.inf, shares)


def _likeliest(
    sums: Float[Array, "B beams V"], count: int
) -> tuple[Float[Array, "B found"], Int[Array, "B found"], Int[Array, "B found"]]:
    """Returns the largest sums, with their beams and pieces; the first ones of equal sums."""
    rows, _, pieces = sums.shape
    values, index = jax.lax.top_k(sums.reshape(rows, -1), count)
    return values, index // pieces, index % pieces


def _pick(x: Array, index: Int[Array, "B found"]) -> Array:
    """Returns entries of the second axis, for each row its own."""
    return jnp.take_along_axis(x, index.reshape(*index.shape, *[1] * (x.ndim - 2)), axis=1)
