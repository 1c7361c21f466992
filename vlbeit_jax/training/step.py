"""The train step: gradients stream by stream, summed, one update. A pure function."""

import functools
import time
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from vlbeit_jax.errors import UsageError
from vlbeit_jax.objectives.base import ROW, Context, Objective, Term, Variables
from vlbeit_jax.ops.device import on_nvidia
from vlbeit_jax.shapes import Array, Bool
from vlbeit_jax.training.gradients import accumulated_gradients
from vlbeit_jax.training.per_chip import per_chip_gradients, per_row, row_axes
from vlbeit_jax.training.sharding import on_mesh
from vlbeit_jax.training.state import TrainState

Tree = Any
Rows = Mapping[str, Array]
# XLA for GPUs would merge products that share an operand, such as one weight in several streams. It
# concatenates the other operands and splits the result again; on an H200 at base size, with 64 rows
# per stream, it also laid tokens out batch last, and copies and transpositions were 13 of 86 ms.
NVIDIA_OPTIONS = {"xla_gpu_dot_merger_threshold_mb": 0}


class TrainStep:
    """``train_step(state, frozen, batches) -> (state, metrics)``, compiled once per set of streams.

    A step whose shapes, types or shardings differ from those it was compiled for is an error, and
    not a second compilation that nobody notices.

    Attributes:
      total_compile_seconds: of all sets of streams so far.
    """

    def __init__(self, step: Any, mesh: Mesh):
        """``step`` is the jitted function."""
        self._step, self._mesh = step, mesh
        self._compiled: dict[tuple[str, ...], Any] = {}
        self.total_compile_seconds = 0.0

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
            began = time.monotonic()
            lowered = self.lower(state, frozen, batches)
            options = NVIDIA_OPTIONS if on_nvidia() else None
            self._compiled[streams] = lowered.compile(compiler_options=options)
            self.total_compile_seconds += time.monotonic() - began
        return self._compiled[streams](state, frozen, batches)


class Guarded(NamedTuple):
    """The part of a state that a refused update leaves alone."""

    params: Tree
    opt_state: Tree
    model_state: Tree
    ema: Tree | None


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
) -> TrainStep:
    """Returns ``train_step(state, frozen, batches) -> (state, metrics)``; the state is donated.

    ``batches`` has one entry per stream of this step. The activations of a stream are freed before
    those of the next one exist. Metrics are device arrays: ``term/loss``, ``term/accuracy``, ...,
    ``grad_norm``, ``update_norm``, and ``skipped``.

    If a loss, the gradient, the update or the next model state is not finite, the step refuses the
    update: parameters, their average, moments and model state stay as they are, on all devices,
    and ``skipped`` is 1. ``state.step`` advances all the same, or a resumed run would take the same
    bad batch for ever.

    Each device sums gradients over microbatches and streams; one reduction per step follows
    (``training.per_chip``).

    Args:
      objectives: by stream, in the order in which their gradients are added.
      optimizer: its update.
      info: a ``ParamInfo`` per parameter.
      shardings: a ``NamedSharding`` per parameter.
      mesh: of devices.
      seed: of the run.
      accumulate: microbatches.
      ema_decay: of ``state.ema``, per update; 0 if the state has none.

    Raises:
      UsageError: an objective needs its whole batch, but there are several microbatches.
    """
    for name, objective in objectives.items():
        if objective.whole_batch and accumulate > 1:
            raise UsageError(
                f"stream {name} needs its whole batch at once, but run.accumulate={accumulate}; "
                "set run.accumulate=1"
            )

    def train_step(
        state: TrainState, frozen: Tree, batches: Mapping[Any, Rows]
    ) -> tuple[TrainState, dict[str, Array]]:
        numbered = {
            name: {**rows, ROW: jnp.arange(len(rows["weight"]))} for name, rows in batches.items()
        }
        for name, rows in numbered.items():
            numbered[name] = prepared(name, state, frozen, rows)
        # The weights come from the data alone, so they are known before the first microbatch.
        weights = {name: objectives[name].weights(rows) for name, rows in batches.items()}
        rest = (state.step, state.model_state, frozen, weights)
        gradients, (terms, statistics) = gradients_of_all_rows(state.params, numbered, rest)
        model_state, metrics = dict(state.model_state), {}
        for name in batches:
            model_state[name], logged = objectives[name].update(model_state[name], statistics[name])
            metrics |= logged | _means(terms[name])
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        metrics["grad_norm"] = optax.tree.norm(gradients)
        metrics["update_norm"] = optax.tree.norm(updates)
        params = optax.apply_updates(state.params, updates)
        new = Guarded(params, opt_state, model_state, averaged(state.ema, params, ema_decay))
        old = Guarded(state.params, state.opt_state, state.model_state, state.ema)
        losses = [metrics[f"{term}/loss"] for name in batches for term in terms[name]]
        ok = all_finite((losses, metrics["grad_norm"], metrics["update_norm"], model_state))
        # Selecting element by element costs no communication and keeps donation complete. lax.cond
        # would copy what its branches share.
        kept = jax.tree.map(lambda after, before: jnp.where(ok, after, before), new, old)
        metrics["skipped"] = 1 - ok.astype(jnp.int32)
        skipped = state.skipped + metrics["skipped"]
        return TrainState(step=state.step + 1, skipped=skipped, **kept._asdict()), metrics

    def prepared(name: str, state: TrainState, frozen: Tree, rows: Rows) -> Rows:
        variables = Variables(state.params, state.model_state[name], frozen)
        key = stream_key(seed, name, state.step)

        def run_per_row(fn: Callable[[Variables, Tree, Context], Tree], batch: Tree) -> Tree:
            def on_rows(params: Tree, rows: Tree, rest: tuple[Tree, Tree, Array]) -> Tree:
                model_state, frozen, key = rest
                return fn(Variables(params, model_state, frozen), rows, Context(key, axes))

            return outputs_of_all_rows(on_rows, state.params, batch, (*variables[1:], key))

        return objectives[name].prepare(variables, rows, Context(key), run_per_row)

    def gradients_and_sums(
        params: Tree, batches: Mapping[Any, Rows], rest: tuple[Array, Tree, Tree, Tree]
    ) -> tuple[Tree, tuple[Tree, Tree]]:
        step, model_state, frozen, weights = rest
        total = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), params)
        terms, statistics = {}, {}
        # Not the order of ``batches``, which tracing sorts: floating-point sums depend on it.
        for name in (stream for stream in objectives if stream in batches):
            gradients, terms[name], statistics[name] = accumulated_gradients(
                objectives[name],
                Variables(params, model_state[name], frozen),
                batches[name],
                weights[name],
                Context(stream_key(seed, name, step), axes),
                accumulate,
            )
            total = jax.tree.map(jnp.add, total, gradients)
            if on_nvidia():  # Or XLA would keep the activations of all streams at once.
                params, total = jax.lax.optimization_barrier((params, total))
        return total, (terms, statistics)

    axes = row_axes(mesh)
    outputs_of_all_rows = per_row(mesh, shardings, info, accumulate)
    gradients_of_all_rows = per_chip_gradients(gradients_and_sums, mesh, shardings, info)
    return TrainStep(jax.jit(train_step, donate_argnums=0), mesh)


def averaged(ema: Tree | None, params: Tree, decay: float) -> Tree | None:
    """Returns the next exponential moving average of the parameters; None if there is none."""
    if (ema is not None) != bool(decay):
        raise ValueError(
            f"ema_decay={decay}, but the state has {'no' if ema is None else 'an'} ema"
        )
    if ema is None:
        return None
    return jax.tree.map(lambda mean, new: decay * mean + (1 - decay) * new, ema, params)


def all_finite(tree: Tree) -> Bool[Array, ""]:
    """Returns whether every floating-point number in a tree is finite."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return functools.reduce(jnp.logical_and, [jnp.isfinite(leaf).all() for leaf in leaves])


def stream_key(seed: int, name: str, step: Array) -> Array:
    """Returns the key of a stream at a step: a function of the three, so nothing has to be saved."""
    stream = zlib.crc32(str(name).encode())
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stream), step)


def _means(terms: Mapping[str, Term]) -> dict[str, Array]:
    return {
        f"{term}/{kind}": value
        for term, sums in terms.items()
        for kind, value in sums.means().items()
    }
