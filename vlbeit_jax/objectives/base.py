"""What every objective gives the train step: sums that can be added over microbatches, streams and devices."""

from collections.abc import Mapping
from typing import Any, Protocol

from flax import struct

from vlbeit_jax.ops.losses import mean
from vlbeit_jax.shapes import Array, Float

Tree = Any


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
        return {name: mean(total, self.weight) for name, total in {"loss": self.loss, **self.sums}.items()}


class Objective(Protocol):
    """A loss over one stream's batches.

    ``extra`` is the part of the state that no gradient moves (a codebook, counts of targets), ``frozen`` the parameters that
    nothing moves (the visual tokenizer of pretraining).
    """

    def init_extra(self) -> Tree:
        """``extra`` before the first step."""
        ...

    def weights(self, batch: Tree) -> dict[str, Float[Array, ""]]:
        """The weight of every term, from the data alone: what the losses of all microbatches are divided by."""
        ...

    def __call__(self, params: Tree, extra: Tree, frozen: Tree, batch: Tree, key: Array) -> tuple[dict[str, Term], Tree]:
        """Terms by name, and statistics for ``update``."""
        ...

    def update(self, extra: Tree, statistics: Tree) -> tuple[Tree, dict[str, Array]]:
        """The new ``extra`` after a step, and what is worth logging about it.

        Statistics come stacked: each array has a first axis more, with one entry a microbatch.
        """
        ...
