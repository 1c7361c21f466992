"""The train step: gradients stream by stream, summed, one update. A pure function."""

import contextlib
import dataclasses
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from vlbeit_jax.objectives.base import ROW, Context, Objective, Term, Variables
from vlbeit_jax.ops.device import on_nvidia
from vlbeit_jax.shapes import Array, Tree
from vlbeit_jax.training.gradients import accumulated_gradients
from vlbeit_jax.training.guard import guarded_update
from vlbeit_jax.training.mesh import on_mesh
from vlbeit_jax.training.per_chip import Work, per_chip_gradients, per_row, row_axes
from vlbeit_jax.training.state import TrainState
from vlbeit_jax.training.trainable import EVERYTHING, Trained

Rows = Mapping[str, Array]
# XLA for GPUs would merge products that share an operand, such as one weight in several streams. It
# concatenates the other operands and splits the result again: 85.1 instead of 83.7 ms a step on an
# H200 at base size with 64 rows per stream (docs/gpu.md).
NVIDIA_OPTIONS = {"xla_gpu_dot_merger_threshold_mb": 0}


class TrainStep:
    """``train_step(state, frozen, batches) -> (state, metrics)``, compiled once per set of streams.

    A step whose shapes, types or shardings differ from those it was compiled for is an error, and
    not a second compilation that nobody notices.

    Attributes:
      total_compile_seconds: of all sets of streams so far.
      compiling: from streams to a context that each of their compilations runs in. It may be set,
        to tell the user, who waits for minutes.
    """

    def __init__(self, step: Any, mesh: Mesh):
        """``step`` is the jitted function."""
        self._step, self._mesh = step, mesh
        self._compiled: dict[tuple[str, ...], Any] = {}
        self.total_compile_seconds = 0.0
        self.compiling: Callable[[Sequence[str]], contextlib.AbstractContextManager[None]] = (
            lambda streams: contextlib.nullcontext()
        )

    def lower(self, state: TrainState, frozen: Tree, batches: Mapping[Any, Any]) -> Any:
        """Returns the step before compilation; arguments may be shapes with shardings."""
        with on_mesh(self._mesh):
            return self._step.lower(state, frozen, batches)

    def __call__(
        self, state: TrainState, frozen: Tree, batches: Mapping[Any, Rows]
    ) -> tuple[TrainState, dict[str, Array]]:
        """Takes a step; the state is donated."""
        streams = tuple(sorted(batches))
        if streams not in self._compiled:
            with self.compiling(streams):
                began = time.monotonic()
                lowered = self.lower(state, frozen, batches)
                options = NVIDIA_OPTIONS if on_nvidia() else None
                self._compiled[streams] = lowered.compile(compiler_options=options)
                self.total_compile_seconds += time.monotonic() - began
        return self._compiled[streams](state, frozen, batches)


def make_train_step(
    objectives: Mapping[str, Objective],
    optimizer: optax.GradientTransformation,
    info: Tree,
    shardings: Tree,
    mesh: Mesh,
    *,
    seed: int,
    accumulate: int = 1,
    ema_decay: float = 0.0,
    trained: Trained = EVERYTHING,
) -> TrainStep:
    """Returns ``train_step(state, frozen, batches) -> (state, metrics)``; the state is donated.

    ``batches`` has one entry per stream of this step. The activations of a stream are freed before
    those of the next one exist. Metrics are device arrays: ``term/loss``, ``term/accuracy``, ...,
    ``grad_norm``, and ``refused``.

    A step that is not finite changes nothing (``training.guard``), and its ``refused`` is 1.

    Each device sums its own gradients; one reduction per step follows (``training.per_chip``).

    Args:
      objectives: by stream, in the order in which their gradients are added.
      optimizer: its update.
      info: a ``ParamInfo`` per parameter.
      shardings: a ``NamedSharding`` per parameter.
      mesh: of devices.
      seed: of the run.
      accumulate: microbatches.
      ema_decay: largest decay of ``state.ema``; 0 if the state has none.
      trained: the parameters that the step moves. The optimizer and the state are for these.
    """
    axes = row_axes(mesh)
    outputs_of_all_rows = per_row(mesh, shardings, info, accumulate)
    work = _work_of_one_chip(objectives, seed, accumulate, axes, trained)
    gradients_of_all_rows = per_chip_gradients(work, mesh, shardings, info, trained)

    def train_step(
        state: TrainState, frozen: Tree, batches: Mapping[Any, Rows]
    ) -> tuple[TrainState, dict[str, Array]]:
        numbered = {
            name: prepared(name, state, frozen, {**rows, ROW: jnp.arange(len(rows["weight"]))})
            for name, rows in batches.items()
        }
        # The weights come from the data alone, so they are known before the first microbatch.
        weights = {name: objectives[name].weights(rows) for name, rows in batches.items()}
        rest = (state.step, state.model_state, frozen, weights)
        gradients, (terms, statistics) = gradients_of_all_rows(state.params, numbered, rest)
        model_state, metrics = dict(state.model_state), {}
        for name in batches:
            model_state[name], logged = objectives[name].update(model_state[name], statistics[name])
            metrics |= logged | _means(terms[name])
        return guarded_update(optimizer, state, gradients, model_state, metrics, ema_decay)

    def prepared(name: str, state: TrainState, frozen: Tree, rows: Rows) -> Rows:
        variables = Variables(state.params, state.model_state[name], frozen)
        ctx = Context(stream_key(seed, name, state.step), axes, accumulate)
        return prepare_rows(objectives[name], variables, rows, ctx, outputs_of_all_rows)

    return TrainStep(jax.jit(train_step, donate_argnums=0), mesh)


def _work_of_one_chip(
    objectives: Mapping[str, Objective],
    seed: int,
    accumulate: int,
    axes: tuple[str, ...],
    trained: Trained,
) -> Work:
    """Returns what each chip does: gradients of its rows, summed over streams and microbatches."""

    def gradients_and_sums(
        params: Tree, batches: Mapping[Any, Rows], rest: tuple[Array, Tree, Tree, Tree]
    ) -> tuple[Tree, tuple[Tree, Tree]]:
        step, model_state, frozen, weights = rest
        total = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), trained.of(params))
        terms, statistics = {}, {}
        # Not the order of ``batches``, which tracing sorts: floating-point sums depend on it.
        for name in (stream for stream in objectives if stream in batches):
            gradients, terms[name], statistics[name] = accumulated_gradients(
                objectives[name],
                Variables(params, model_state[name], frozen),
                batches[name],
                weights[name],
                Context(stream_key(seed, name, step), axes, accumulate),
                accumulate,
                trained,
            )
            total = jax.tree.map(jnp.add, total, gradients)
            if on_nvidia():
                # Or XLA would keep the activations of all streams at once. That is 1% faster and
                # takes 16.0 instead of 10.3 GiB (H200, base size, 64 rows per stream).
                params, total = jax.lax.optimization_barrier((params, total))
        return total, (terms, statistics)

    return gradients_and_sums


def prepare_rows(
    objective: Objective, variables: Variables, rows: Rows, ctx: Context, run: Callable[..., Tree]
) -> Rows:
    """Returns a stream's rows with what its objective adds to them.

    Args:
      objective: of the stream.
      variables: global arrays.
      rows: all rows, with their numbers.
      ctx: as the loss gets it, per chip.
      run: of ``training.per_chip.per_row``.
    """
    params, *others = variables

    def per_row(fn: Callable[[Variables, Tree, Context], Tree], batch: Tree) -> Tree:
        def on_rows(params: Tree, rows: Tree, rest: tuple[list[Tree], Array]) -> Tree:
            others, key = rest
            return fn(Variables(params, *others), rows, dataclasses.replace(ctx, key=key))

        return run(on_rows, params, batch, (others, ctx.key))

    # No axis splits the rows of a global array.
    return objective.prepare(variables, rows, dataclasses.replace(ctx, row_axes=()), per_row)


def stream_key(seed: int, name: str, step: Array) -> Array:
    """Returns a stream's key at a step: a function of its arguments, so no key is saved."""
    stream = zlib.crc32(str(name).encode())
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stream), step)


def _means(terms: Mapping[str, Term]) -> dict[str, Array]:
    return {
        f"{term}/{kind}": value
        for term, sums in terms.items()
        for kind, value in sums.means().items()
    }
