"""A task's train step as shapes, for compiling ahead of time and for benchmarks."""

from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding

from vlbeit_jax.shapes import Tree
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.base import Task
from vlbeit_jax.training.mesh import batch_sharding, check_batch, replicated, shardings
from vlbeit_jax.training.optimizer import make_optimizer
from vlbeit_jax.training.state import StateMaker, TrainState, declarations, state_maker
from vlbeit_jax.training.step import TrainStep, make_train_step
from vlbeit_jax.training.trainable import trained_parameters


class AbstractStep(NamedTuple):
    """A step on a mesh, ready to be lowered.

    Attributes:
      step: of ``training.step``.
      make_state: a fresh state from a seed.
      state: its shapes with shardings, as are the next two.
      frozen: of networks that are not trained.
      batches: by stream.
    """

    step: TrainStep
    make_state: Any
    state: TrainState
    frozen: Tree
    batches: dict[str, dict[str, jax.ShapeDtypeStruct]]


def abstract_step(config: Config, mesh: Mesh) -> AbstractStep:
    """Returns the step of a configuration on a mesh; nothing that it names is opened.

    Raises:
      UsageError: the mesh does not divide a batch or a parameter.
    """
    task = config.task
    step, (make_state, state) = step_and_state(task, config, mesh)
    batches = {name: row_shapes(task, name) for name in task.streams()}
    return AbstractStep(
        step,
        make_state,
        state,
        _placed(task.frozen(), replicated(mesh)),
        _placed(batches, batch_sharding(mesh)),
    )


def step_and_state(task: Task, config: Config, mesh: Mesh) -> tuple[TrainStep, StateMaker]:
    """Returns a task's train step on a mesh, and how to make its state.

    Raises:
      UsageError: the mesh does not divide a batch or a parameter, or ``optimizer.trainable`` names
        parameters that do not exist.
    """
    streams = task.streams()
    for name, stream in streams.items():
        check_batch(name, stream.batch_size, config.run.accumulate, mesh)
    objectives = {name: stream.objective for name, stream in streams.items()}
    info = declarations(task.init).info
    optimizer = make_optimizer(config.optimizer, config.run.steps, info)
    trained = trained_parameters(config.optimizer.trainable, info)
    maker = state_maker(
        task.init,
        lambda: {name: objective.init_model_state() for name, objective in objectives.items()},
        optimizer,
        mesh,
        ema=bool(config.optimizer.ema_decay),
        trained=trained,
    )
    step = make_train_step(
        objectives,
        optimizer,
        info,
        shardings(maker.abstract.params),
        mesh,
        seed=config.run.seed,
        accumulate=config.run.accumulate,
        ema_decay=config.optimizer.ema_decay,
        trained=trained,
    )
    return step, maker


def row_shapes(task: Task, name: str) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the shapes of a stream's batch, the rows of all hosts together."""
    stream = task.streams()[name]
    return {
        key: jax.ShapeDtypeStruct((stream.batch_size, *spec.shape), spec.dtype)
        for key, spec in stream.example.items()
    }


def _placed(tree: Tree, sharding: NamedSharding) -> Tree:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree
    )
