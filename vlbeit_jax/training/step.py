"""The train step: gradients stream by stream, summed, one update. A pure function, compiled once per set of streams."""

import time
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from vlbeit_jax.objectives.base import ROW, Objective, Term
from vlbeit_jax.ops.device import on_nvidia
from vlbeit_jax.ops.losses import mean
from vlbeit_jax.shapes import Array
from vlbeit_jax.training.sharding import on_each_chip, on_mesh
from vlbeit_jax.training.state import TrainState
from vlbeit_jax.types import Stream

Tree = Any
# XLA for GPUs would join products that share an operand, such as one weight in several streams. It copies the other operands
# together and cuts the result apart again; on an H200 at base size, 64 rows a stream, it also laid tokens out batch last, and
# copies and transpositions were 13 of 86 ms a step.
NVIDIA_OPTIONS = {"xla_gpu_dot_merger_threshold_mb": 0}
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

    def __call__(
        self, state: TrainState, frozen: Tree, batches: Batches
    ) -> tuple[TrainState, dict[str, Array]]:
        """Takes a step; the state is donated."""
        streams = tuple(sorted(batches))
        if streams not in self._compiled:
            began = time.monotonic()
            lowered = self.lower(state, frozen, batches)
            self._compiled[streams] = lowered.compile(
                compiler_options=NVIDIA_OPTIONS if on_nvidia() else None
            )
            self.total_compile_seconds += time.monotonic() - began
        return self._compiled[streams](state, frozen, batches)


def make_train_step(
    objectives: Mapping[str, Objective],
    optimizer: optax.GradientTransformation,
    seed: int,
    accumulate: int,
    mesh: Mesh,
    places: Tree,
) -> TrainStep:
    """Builds ``train_step(state, frozen, batches) -> (state, metrics)``; the state is donated.

    ``batches`` has one entry per stream of this step. A stream's activations are gone before the next one's exist. The
    metrics are device arrays: ``term/loss``, ``term/accuracy``, ..., ``grad_norm``.

    Gradients are summed over microbatches and streams on each chip, and cross the links once a step. Left to itself, XLA
    sends them after every product of every stream.

    Args:
      objectives: by stream.
      optimizer: its update.
      seed: of the run.
      accumulate: microbatches.
      mesh: where everything lies.
      places: a ``NamedSharding`` per parameter.
    """

    def train_step(
        state: TrainState, frozen: Tree, batches: Batches
    ) -> tuple[TrainState, dict[str, Array]]:
        numbered = {
            name: {**rows, ROW: jnp.arange(len(rows["weight"]))} for name, rows in batches.items()
        }
        weights = {name: objectives[name].weights(rows) for name, rows in batches.items()}
        gradients, (terms, statistics) = on_chips(
            state.params, numbered, (state.step, state.extra, frozen, weights)
        )
        extra, metrics = dict(state.extra), {}
        for name in batches:
            extra[name], logged = objectives[name].update(extra[name], statistics[name])
            metrics |= logged | {
                f"{term}/{kind}": value
                for term, sums in terms[name].items()
                for kind, value in sums.means().items()
            }
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        metrics["grad_norm"] = optax.tree.norm(gradients)
        state = TrainState(
            state.step + 1, optax.apply_updates(state.params, updates), opt_state, extra
        )
        return state, metrics

    def gradients_and_sums(
        params: Tree, batches: Batches, rest: tuple[Array, Tree, Tree, Tree]
    ) -> tuple[Tree, tuple[Tree, Tree]]:
        step, extra, frozen, weights = rest
        total, terms, statistics = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), params), {}, {}
        for name in (stream for stream in Stream if stream in batches):
            key = stream_key(seed, name, step)
            found, terms[name], statistics[name] = accumulated_gradients(
                objectives[name],
                params,
                extra[name],
                frozen,
                batches[name],
                weights[name],
                key,
                accumulate,
            )
            total = jax.tree.map(jnp.add, total, found)
            if on_nvidia():  # Or XLA would keep the activations of all streams at once.
                params, total = jax.lax.optimization_barrier((params, total))
        return total, (terms, statistics)

    objective = next(iter(objectives.values()))  # All of a run's agree, as they train one network.
    crossings = jax.tree_util.tree_map_with_path(
        lambda path, _: objective.crossing([entry.key for entry in path]), places
    )
    on_chips = on_each_chip(gradients_and_sums, mesh, places, crossings)
    return TrainStep(jax.jit(train_step, donate_argnums=0), mesh)


def accumulated_gradients(
    objective: Objective,
    params: Tree,
    extra: Tree,
    frozen: Tree,
    batch: Mapping[str, Array],
    weights: Mapping[str, Array],
    key: Array,
    parts: int,
) -> tuple[Tree, dict[str, Term], Tree]:
    """Gradients (float32) of the sum over terms of loss / weight, where the weights are those of the whole batch.

    The weights come from the data alone, so they are known before the first microbatch, and cutting the batch up changes
    nothing but the memory that is needed.

    Returns:
      Gradients, the terms' totals and the statistics, summed over the rows of ``batch``.
    """

    def loss(params: Tree, rows: Mapping[str, Array]) -> tuple[Array, tuple[dict[str, Term], Tree]]:
        terms, statistics = objective(params, extra, frozen, rows, key)
        return sum(
            (mean(term.loss, weights[name]) for name, term in terms.items()), jnp.zeros(())
        ), (terms, statistics)

    def part(rows: Mapping[str, Array]) -> tuple[Tree, dict[str, Term], Tree]:
        gradients, (terms, statistics) = jax.grad(loss, has_aux=True)(params, rows)
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), gradients), terms, statistics

    if parts == 1:
        return part(batch)
    micro = {name: rows.reshape(parts, -1, *rows.shape[1:]) for name, rows in batch.items()}
    zero = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(part, {name: rows[0] for name, rows in micro.items()}),
    )
    total, _ = jax.lax.scan(
        lambda total, rows: (jax.tree.map(jnp.add, total, part(rows)), None), zero, micro
    )
    return total


def stream_key(seed: int, name: str, step: Array) -> Array:
    """The key of a stream at a step: a function of the three, so that nothing has to be saved."""
    return jax.random.fold_in(
        jax.random.fold_in(jax.random.key(seed), zlib.crc32(str(name).encode())), step
    )
