"""What an objective gives the train step: sums that add up over rows, microbatches and devices."""

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import jax
from flax import struct

from vlbeit_jax.ops.losses import mean
from vlbeit_jax.shapes import Array, Float, Int, Tree

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


class Variables(NamedTuple):
    """The arrays that a loss depends on, besides the batch.

    Attributes:
      params: what gradients move.
      model_state: the objective's own part of the state, which no gradient moves (a codebook,
        counts of targets).
      frozen: parameters that nothing moves (pretraining's visual tokenizer).
    """

    params: Tree
    model_state: Tree
    frozen: Tree


@struct.dataclass
class Context:
    """Where and when a loss is computed.

    Attributes:
      key: of (seed, stream, step); the same on all devices and in all microbatches. Fold in
        ``batch[ROW]`` for a draw per row.
      row_axes: mesh axes that the rows are split over here, if any.
      microbatches: parts that each device's rows are split into.
    """

    key: Array
    row_axes: tuple[str, ...] = struct.field(pytree_node=False, default=())
    microbatches: int = struct.field(pytree_node=False, default=1)


# ``per_row(fn, batch)``: the outputs of ``fn(variables, rows, ctx)`` for all rows of a batch.
PerRow = Callable[[Callable[[Variables, Tree, Context], Tree], Tree], Tree]


@runtime_checkable
class Objective(Protocol):
    """A loss over one stream's batches. Inherit from it, and make it frozen and hashable.

    All sums are over rows, and every random draw depends on a row's number (``batch[ROW]``), so
    that the train step may split a batch over devices and microbatches at will.
    """

    @property
    def whole_batch(self) -> bool:
        """Whether the forward pass communicates over ``Context.row_axes`` (BatchNorm).

        Such an objective gets all rows of a device at once, also if there are microbatches. To need
        less memory then, it takes those parts that treat rows independently microbatch by
        microbatch itself (``Context.microbatches``).
        """
        return False

    def init_model_state(self) -> Tree:
        """Returns the model state before the first step."""
        return {}

    def weights(self, batch: Tree) -> dict[str, Float[Array, ""]]:
        """Returns the weight of every term, from the data alone.

        The losses of all microbatches are divided by the weight of the whole batch.
        """
        ...

    def prepare(self, variables: Variables, batch: Tree, ctx: Context, per_row: PerRow) -> Tree:
        """Returns the batch, perhaps with new entries: here rows see each other, however split.

        It runs on global arrays, before rows are split over devices and microbatches. For
        contrastive losses, hard negatives, mixup.

        Args:
          variables: all of it; no gradient flows back from here.
          batch: all rows, with their numbers.
          ctx: as in ``__call__``, which therefore makes the same draws.
          per_row: evaluates a function device by device and microbatch by microbatch, so that it
            takes no more memory than the loss does.
        """
        return batch

    def __call__(
        self, variables: Variables, batch: Tree, ctx: Context
    ) -> tuple[dict[str, Term], Tree]:
        """Returns terms by name, and statistics for ``update``: sums over rows."""
        ...

    def update(self, model_state: Tree, statistics: Tree) -> tuple[Tree, dict[str, Array]]:
        """Returns the next model state and metrics, from the statistics of the whole batch."""
        return model_state, {}


def on_one_device(
    objective: Objective, variables: Variables, batch: Tree, ctx: Context
) -> tuple[dict[str, Term], Tree]:
    """Returns what an objective returns for a whole batch, prepared without any mesh.

    This is what the train step computes, without splitting: for counting and tracing.
    """
    fixed = jax.lax.stop_gradient(variables)
    prepared = objective.prepare(fixed, batch, ctx, lambda fn, rows: fn(fixed, rows, ctx))
    return objective(variables, prepared, ctx)


def uniform_per_row(key: Array, rows: Int[Array, " B"], *shape: int) -> Float[Array, "B ..."]:
    """Returns uniform draws in [0, 1) for each row, from its number and the key alone."""
    return jax.vmap(lambda row: jax.random.uniform(jax.random.fold_in(key, row), shape))(rows)
