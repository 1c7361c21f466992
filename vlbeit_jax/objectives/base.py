"""What an objective gives the train step: sums that add up over rows, microbatches and devices."""

from collections.abc import Mapping
from typing import Any, Protocol

import jax
from flax import struct

from vlbeit_jax.ops.losses import mean
from vlbeit_jax.shapes import Array, Float, Int

Tree = Any
ROW = "row"  # The entry of a batch that numbers its rows, over all hosts, devices and microbatches.


@struct.dataclass
class Term:
    """One loss, not yet divided: ``loss`` and every entry of ``sums`` are totals over ``weight``.

    Attributes:
      loss: summed loss; gradients flow through it alone.
      weight: how much was summed (masked positions, patches); never depends on parameters.
      sums: further totals to report, such as the number of correct predictions.
    """

    loss: Float[Array, ""]
    weight: Float[Array, ""]
    sums: Mapping[str, Float[Array, ""]] = struct.field(default_factory=dict)

    def means(self) -> dict[str, Float[Array, ""]]:
        """Returns loss and sums divided by the weight; 0 where the weight is 0."""
        totals = {"loss": self.loss, **self.sums}
        return {name: mean(total, self.weight) for name, total in totals.items()}


class Objective(Protocol):
    """A loss over one stream's batches.

    ``model_state`` is the part of the state that no gradient moves (a codebook, counts of targets), and
    ``frozen`` are parameters that nothing moves (pretraining's visual tokenizer).

    Everything is summed over rows, and every random draw depends on a row's number (``batch[ROW]``),
    so that a batch may be split over devices and microbatches at will.
    """

    def init_model_state(self) -> Tree:
        """Returns ``model_state`` before the first step."""
        ...

    def weights(self, batch: Tree) -> dict[str, Float[Array, ""]]:
        """Returns the weight of every term, from the data alone.

        The losses of all microbatches are divided by the weight of the whole batch.
        """
        ...

    def __call__(
        self, params: Tree, model_state: Tree, frozen: Tree, batch: Tree, key: Array
    ) -> tuple[dict[str, Term], Tree]:
        """Returns terms by name, and statistics for ``update``: sums over rows."""
        ...

    def update(self, model_state: Tree, statistics: Tree) -> tuple[Tree, dict[str, Array]]:
        """Returns ``model_state`` after a step, and metrics, from the statistics of the whole batch."""
        ...


def uniform_per_row(key: Array, rows: Int[Array, "B"], *shape: int) -> Float[Array, "B *S"]:
    """Returns uniform draws in [0, 1) for each row, from its number and the key alone."""
    return jax.vmap(lambda row: jax.random.uniform(jax.random.fold_in(key, row), shape))(rows)
