"""The train step: gradients stream by stream, summed, one update. A pure function, compiled once per set of streams."""

import time
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from vlbeit_jax.objectives.base import Objective, Term
from vlbeit_jax.ops.losses import mean
from vlbeit_jax.shapes import Array
from vlbeit_jax.training.sharding import on_mesh
from vlbeit_jax.training.state import TrainState

Tree = Any
Batches = Mapping[Any, Mapping[str, Array]]


class TrainStep:
    """``train_step(state, frozen, batches) -> (state, metrics)``, compiled once per set of streams and never again.

    A step whose shapes, types or shardings differ from those it was compiled for is an error, and not a second compilation
    that nobody notices.

    Attributes:
      total_compile_seconds: of all sets of streams so far.
    """

    def __init__(self, step: Any, mesh: Mesh):
        """``step`` is the jitted function."""
        self._step, self._mesh = step, mesh
        self._compiled: dict[tuple[str, ...], Any] = {}
        self.total_compile_seconds = 0.0

    def lower(self, state: TrainState, frozen: Tree, batches: Batches) -> Any:
        """The step before compilation; arguments may be shapes with shardings."""
        with on_mesh(self._mesh):
            return self._step.lower(state, frozen, batches)

    def __call__(self, state: TrainState, frozen: Tree, batches: Batches) -> tuple[TrainState, dict[str, Array]]:
        """Takes a step; the state is donated."""
        streams = tuple(sorted(batches))
        if streams not in self._compiled:
            began = time.monotonic()
            self._compiled[streams] = self.lower(state, frozen, batches).compile()
            self.total_compile_seconds += time.monotonic() - began
        return self._compiled[streams](state, frozen, batches)


def make_train_step(
    objectives: Mapping[str, Objective], optimizer: optax.GradientTransformation, seed: int, accumulate: int, mesh: Mesh
) -> TrainStep:
    """Builds ``train_step(state, frozen, batches) -> (state, metrics)``; the state is donated.

    ``batches`` has one entry per stream of this step. A stream's activations are gone before the next one's exist. The
    metrics are device arrays: ``term/loss``, ``term/accuracy``, ..., ``grad_norm``.
    """

    def train_step(state: TrainState, frozen: Tree, batches: Batches) -> tuple[TrainState, dict[str, Array]]:
        gradients = jax.tree.map(jnp.zeros_like, state.params)
        extra, metrics = dict(state.extra), {}
        for name in sorted(batches):
            key = stream_key(seed, name, state.step)
            found, terms, statistics = accumulated_gradients(
                objectives[name], state.params, extra[name], frozen, batches[name], key, accumulate
            )
            gradients = jax.tree.map(jnp.add, gradients, found)
            extra[name], logged = objectives[name].update(extra[name], statistics)
            metrics |= logged | {f"{term}/{kind}": value for term, found in terms.items() for kind, value in found.means().items()}
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        metrics["grad_norm"] = optax.tree.norm(gradients)
        state = TrainState(state.step + 1, optax.apply_updates(state.params, updates), opt_state, extra)
        return state, metrics

    return TrainStep(jax.jit(train_step, donate_argnums=0), mesh)


def accumulated_gradients(
    objective: Objective, params: Tree, extra: Tree, frozen: Tree, batch: Mapping[str, Array], key: Array, parts: int
) -> tuple[Tree, dict[str, Term], Tree]:
    """Gradients of the sum over terms of loss / weight, where both are totals over the whole batch.

    The weights come from the data alone, so they are known before the first microbatch, and cutting the batch up changes
    nothing but the memory that is needed.

    Returns:
      Gradients, the terms' totals, and the statistics of every microbatch, stacked.
    """
    weights = objective.weights(batch)

    def loss(params: Tree, rows: Mapping[str, Array], key: Array) -> tuple[Array, tuple[dict[str, Term], Tree]]:
        terms, statistics = objective(params, extra, frozen, rows, key)
        return sum((mean(term.loss, weights[name]) for name, term in terms.items()), jnp.zeros(())), (terms, statistics)

    def part(rows: Mapping[str, Array], index: int | Array) -> tuple[Tree, dict[str, Term], Tree]:
        gradients, (terms, statistics) = jax.grad(loss, has_aux=True)(params, rows, jax.random.fold_in(key, index))
        return gradients, terms, statistics

    if parts == 1:
        gradients, terms, statistics = part(batch, 0)
        return gradients, terms, jax.tree.map(lambda leaf: leaf[None], statistics)
    # Microbatch i is every parts-th row from the i-th on, so that each device keeps the rows that it has.
    micro = {name: jnp.swapaxes(rows.reshape(-1, parts, *rows.shape[1:]), 0, 1) for name, rows in batch.items()}

    def body(total: Tree, inputs: tuple) -> tuple[Tree, Tree]:
        *found, statistics = part(*inputs)
        return jax.tree.map(jnp.add, total, found), statistics

    *shapes, _ = jax.eval_shape(part, {name: rows[0] for name, rows in micro.items()}, 0)
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    (gradients, terms), statistics = jax.lax.scan(body, zero, (micro, jnp.arange(parts)))
    return gradients, terms, statistics


def stream_key(seed: int, name: str, step: Array) -> Array:
    """The key of a stream at a step: a function of the three, so that nothing has to be saved."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), zlib.crc32(str(name).encode())), step)
