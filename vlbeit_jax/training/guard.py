"""Refuses a step that is not finite, so that no state is ever ruined."""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from vlbeit_jax.shapes import Array, Bool, Tree
from vlbeit_jax.training.optimizer import at_step
from vlbeit_jax.training.state import TrainState
from vlbeit_jax.training.trainable import part_like, replaced


class Guarded(NamedTuple):
    """The part of a state that an update moves, and that a refused one leaves alone."""

    params: Tree
    opt_state: Tree
    model_state: Tree
    ema: Tree | None


def guarded_update(
    optimizer: optax.GradientTransformation,
    state: TrainState,
    gradients: Tree,
    model_state: Tree,
    metrics: Mapping[str, Array],
    ema_decay: float,
) -> tuple[TrainState, dict[str, Array]]:
    """Returns the next state, and metrics with ``grad_norm`` and ``refused``.

    If a loss, the gradients' norm, the next model state or a next parameter is not finite,
    parameters, moments, model state and averaged parameters stay as they are. All devices
    decide alike, since all of these are sums over devices. ``step`` advances all the same, or a
    resumed run would take the same bad batch again and again.

    Args:
      optimizer: its moments are finite whenever the gradients' norm is, as those of
        ``training.optimizer`` are.
      state: before the step.
      gradients: of the trained parameters, summed over all rows. The others pass through.
      model_state: after the step.
      metrics: of the step; names of losses end in "/loss".
      ema_decay: largest decay of the averaged parameters; 0 if the state has none.
    """
    before = part_like(state.params, gradients)
    # The learning rate follows the step, and not the number of updates, which lags behind after
    # refused ones.
    scheduled = at_step(state.opt_state, state.step)
    updates, opt_state = optimizer.update(gradients, scheduled, before)
    params = optax.apply_updates(before, updates)
    new = Guarded(params, opt_state, model_state, averaged(state, params, ema_decay))
    old = Guarded(before, state.opt_state, state.model_state, state.ema)

    grad_norm = optax.tree.norm(gradients)
    losses = [value for name, value in metrics.items() if name.endswith("/loss")]
    # A chip can keep no new parameter before it has looked at all of them, so it writes and reads
    # parameters and moments once more: 2% of a step (docs/scale.md). Otherwise an update could ruin
    # the parameters while loss and gradients are still finite.
    ok = all_finite((losses, grad_norm, model_state, params))
    # Selecting element by element needs no communication and keeps donation complete. lax.cond
    # would copy what its branches share.
    kept = jax.tree.map(lambda one, other: jnp.where(ok, one, other), new, old)
    refused = 1 - ok.astype(jnp.int32)
    # The parameters that are not trained are handed on: with donation, no copy is made.
    moved = kept._asdict() | {"params": replaced(state.params, kept.params)}
    after = TrainState(step=state.step + 1, refused=state.refused + refused, **moved)
    return after, {**metrics, "grad_norm": grad_norm, "refused": refused}


def averaged(state: TrainState, params: Tree, decay: float) -> Tree | None:
    """Returns the next exponential moving average of the parameters; None if there is none.

    The decay of update n, counted from 1, is at most n / (9 + n). Otherwise the start would keep
    more than half of the weight for 700 updates with a decay of 0.999, and for 7,000 with 0.9999.

    Args:
      state: before the update.
      params: the trained ones, after the update.
      decay: the largest one; 0 if the state has no average.
    """
    ema = state.ema
    if (ema is not None) != bool(decay):
        raise ValueError(
            f"ema_decay={decay}, but the state has {'no' if ema is None else 'an'} ema"
        )
    if ema is None:
        return None
    update = state.step - state.refused + 1
    decay_now = jnp.minimum(decay, update / (9 + update))
    return jax.tree.map(lambda mean, new: decay_now * mean + (1 - decay_now) * new, ema, params)


def all_finite(tree: Tree) -> Bool[Array, ""]:
    """Returns whether every floating-point number in a tree is finite."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return functools.reduce(jnp.logical_and, [jnp.isfinite(leaf).all() for leaf in leaves])
