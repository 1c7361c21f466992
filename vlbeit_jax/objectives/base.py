"""What every objective gives the train step: sums that can be added over microbatches, streams and devices."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import struct

from vlbeit_jax.models.layers import MULTIPLIED
from vlbeit_jax.ops.losses import mean
from vlbeit_jax.shapes import Array, Float, Int

Tree = Any
ROW = "row"  # The entry of a batch that numbers its rows, over all hosts, chips and microbatches.
PARTED = {
    "words",
    "language_head",
}  # Names of what is cut along the vocabulary and used where it lies (``ops.vocabulary``).


@dataclasses.dataclass(frozen=True)
class Crossing:
    """Types in which a parameter and its gradient go from chip to chip.

    Attributes:
      parameter: that in which it is used, so that nothing is lost.
      gradient: that of each chip's part of the sum.
      stays: its shards are used where they lie, and do not cross at all (``ops.vocabulary``).
    """

    parameter: jnp.dtype
    gradient: jnp.dtype
    stays: bool = False


@struct.dataclass
class Term:
    """One loss, not yet divided: ``loss`` and every entry of ``sums`` are totals over ``weight``.

    Attributes:
      loss: summed loss; gradients flow through this alone.
      weight: how much was summed (masked positions, patches); never depends on parameters.
      sums: further totals to be reported, such as the number of right answers.
    """

    loss: Float[Array, ""]
    weight: Float[Array, ""]
    sums: Mapping[str, Float[Array, ""]] = struct.field(default_factory=dict)

    def means(self) -> dict[str, Float[Array, ""]]:
        """Loss and sums divided by the weight; 0 where nothing was weighed."""
        return {
            name: mean(total, self.weight)
            for name, total in {"loss": self.loss, **self.sums}.items()
        }


class Objective(Protocol):
    """A loss over one stream's batches.

    ``extra`` is the part of the state that no gradient moves (a codebook, counts of targets), ``frozen`` the parameters that
    nothing moves (the visual tokenizer of pretraining).

    Everything is summed over rows, and what is random depends on a row's number (``batch[ROW]``), so that a batch may be cut
    over chips and microbatches at will.
    """

    def init_extra(self) -> Tree:
        """``extra`` before the first step."""
        ...

    def weights(self, batch: Tree) -> dict[str, Float[Array, ""]]:
        """The weight of every term, from the data alone: what the losses of all microbatches are divided by."""
        ...

    def __call__(
        self, params: Tree, extra: Tree, frozen: Tree, batch: Tree, key: Array
    ) -> tuple[dict[str, Term], Tree]:
        """Terms by name, and statistics for ``update``: sums over rows."""
        ...

    def update(self, extra: Tree, statistics: Tree) -> tuple[Tree, dict[str, Array]]:
        """The new ``extra`` after a step, and what is worth logging about it, from the statistics of the whole batch."""
        ...

    def crossing(self, path: Sequence[str]) -> Crossing:
        """In what type a parameter and its gradient go from chip to chip."""
        ...


def crossing(path: Sequence[str], dtype: jnp.dtype) -> Crossing:
    """Where products are in ``dtype``: what is multiplied crosses in it, and so do the gradients of all that is large."""
    exact, multiplied = jnp.dtype(jnp.float32), path[-1] in MULTIPLIED
    large = multiplied or path[-1] == "words"
    return Crossing(
        dtype if multiplied else exact, dtype if large else exact, not PARTED.isdisjoint(path)
    )


def draws_of_rows(key: Array, rows: Int[Array, "B"], *shape: int) -> Float[Array, "B *S"]:
    """Uniform numbers in [0, 1) for every row, from its number and the key alone."""
    return jax.vmap(lambda row: jax.random.uniform(jax.random.fold_in(key, row), shape))(rows)
