"""Gradients of one stream's loss, microbatch by microbatch."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from vlbeit_jax.models.params import differentiated_by
from vlbeit_jax.objectives.base import Context, Objective, Term, Variables
from vlbeit_jax.ops.losses import mean
from vlbeit_jax.shapes import Array, Tree
from vlbeit_jax.training.per_chip import split_rows
from vlbeit_jax.training.trainable import EVERYTHING, Trained, replaced

Rows = Mapping[str, Array]


def accumulated_gradients(
    objective: Objective,
    variables: Variables,
    batch: Rows,
    weights: Mapping[str, Array],
    ctx: Context,
    microbatches: int,
    trained: Trained = EVERYTHING,
) -> tuple[Tree, dict[str, Term], Tree]:
    """Returns gradients (float32) of the sum over terms of loss / weight, and sums over rows.

    Args:
      objective: whose loss it is.
      variables: that the loss depends on.
      batch: the rows of one device.
      weights: of the terms, over the whole batch, so that splitting the batch changes nothing but
        the memory that is needed.
      ctx: of the loss.
      microbatches: that ``batch`` is split into. An objective that needs its whole batch splits it
        itself.
      trained: the parameters that get gradients.

    Returns:
      Gradients, the terms' totals and the statistics, summed over the rows of ``batch``.
    """

    def loss(moved: Tree, rows: Rows) -> tuple[Array, tuple[dict[str, Term], Tree]]:
        # A function of the trained parameters alone: the backward pass ends where none of them lies
        # below.
        params = replaced(variables.params, moved)
        with differentiated_by(trained.names):
            terms, statistics = objective(variables._replace(params=params), rows, ctx)
        losses = (mean(term.loss, weights[name]) for name, term in terms.items())
        return sum(losses, jnp.zeros(())), (terms, statistics)

    def on_rows(rows: Rows) -> tuple[Tree, dict[str, Term], Tree]:
        moved = trained.of(variables.params)
        gradients, (terms, statistics) = jax.grad(loss, has_aux=True)(moved, rows)
        # Parameters may be bfloat16 here. In that type, a sum over microbatches and streams would
        # lose the small ones.
        gradients = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), gradients)
        return gradients, terms, statistics

    if microbatches == 1 or objective.whole_batch:
        return on_rows(batch)
    parts = split_rows(dict(batch), microbatches)
    # A loop, so that the activations of one microbatch are freed before the next one begins.
    shapes = jax.eval_shape(on_rows, jax.tree.map(lambda rows: rows[0], parts))
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def add(total: Tree, rows: Rows) -> tuple[Tree, None]:
        return jax.tree.map(jnp.add, total, on_rows(rows)), None

    return jax.lax.scan(add, zero, parts)[0]
