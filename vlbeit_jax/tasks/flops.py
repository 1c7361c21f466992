"""What a train step of a configuration computes, counted in the jaxpr of each stream's loss."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from vlbeit_jax.cost.flops import StepFlops, loss_flops
from vlbeit_jax.models.params import differentiated_by
from vlbeit_jax.objectives.base import ROW, Context, Variables, on_one_device
from vlbeit_jax.shapes import Tree
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.abstract import row_shapes
from vlbeit_jax.tasks.base import Task
from vlbeit_jax.training.mesh import AXES
from vlbeit_jax.training.schedule import Schedule
from vlbeit_jax.training.state import declarations
from vlbeit_jax.training.trainable import EVERYTHING, Trained, trained_parameters

# On an abstract CPU, "auto" selects no kernel, even in networks whose settings ``_with_settings``
# cannot reach.
_ONE_CPU = AbstractMesh(
    (1, 1, 1),
    AXES,
    axis_types=(AxisType.Auto,) * len(AXES),
    abstract_device=AbstractDevice("cpu", None, "cpu"),
)


def step_flops(config: Config) -> StepFlops:
    """Operations, tokens and samples of the mean step of the schedule's cycle.

    Args:
      config: the run; its data and tokenizers are not opened.
    """
    by_stream = _flops_of_config(config)
    cycle = Schedule.parse(config.task.schedule).cycle
    steps = [total([by_stream[stream] for stream in streams]) for streams in cycle]
    return StepFlops(*(value / len(cycle) for value in total(steps)))


# Tracing takes seconds at base size, and the benchmark asks twice.
@functools.cache
def _flops_of_config(config: Config) -> dict[str, StepFlops]:
    info = declarations(config.task.init).info
    trained = trained_parameters(config.optimizer.trainable, info)
    return flops_of_streams(config.task, trained)


def flops_of_streams(task: Task, trained: Trained = EVERYTHING) -> dict[str, StepFlops]:
    """Operations, tokens and samples that every stream adds to a step."""
    params = declarations(task.init).shapes
    return {stream: _stream_flops(task, stream, params, trained) for stream in task.streams()}


def total(flops: Iterable[StepFlops]) -> StepFlops:
    """Returns the sum over streams or steps."""
    return StepFlops(*(sum(values) for values in zip(*flops, strict=True)))


def _stream_flops(task: Task, stream: str, params: Tree, trained: Trained) -> StepFlops:
    # The same mathematics, but quick to trace and to count: attention is matrix products and not a
    # kernel whose operations JAX cannot see, and blocks that are alike are one loop.
    objective = _with_settings(task.streams()[stream].objective, attention="einsum", scan=True)
    batch = row_shapes(task, stream)
    # The train step numbers the rows, and passes a key.
    batch[ROW] = jax.ShapeDtypeStruct(batch["weight"].shape, jnp.int32)
    key = jax.eval_shape(jax.random.key, 0)
    model_state = jax.eval_shape(objective.init_model_state)

    def loss(params: Tree, model_state: Tree, frozen: Tree, *rest: Tree) -> tuple[jax.Array, Tree]:
        batch, key = rest
        variables = Variables(params, model_state, frozen)
        with differentiated_by(trained.names):
            terms, statistics = on_one_device(objective, variables, batch, Context(key))
        return sum((term.loss for term in terms.values()), jnp.zeros(())), (terms, statistics)

    frozen = task.frozen()
    with jax.sharding.use_abstract_mesh(_ONE_CPU):
        flops = loss_flops(loss, params, model_state, frozen, batch, key, part=trained.of)
    rows = batch["weight"].shape[0]
    return StepFlops(flops.trained, flops.frozen, rows * task.streams()[stream].tokens, rows)


def _with_settings(value: Any, **settings: Any) -> Any:
    """Returns a dataclass with these fields replaced, also in nested networks and configs."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    names = [field.name for field in dataclasses.fields(value) if field.init]
    changed = {
        name: settings.get(name, _with_settings(getattr(value, name), **settings))
        for name in names
        if name not in ("parent", "name")  # Where a Flax module belongs.
    }
    return value.clone(**changed) if isinstance(value, nn.Module) else type(value)(**changed)
