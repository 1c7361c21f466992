"""A task is data: a model, objectives by stream, streams, what a checkpoint has to match, how to evaluate.

There is one loop, one step and one checkpointer; a new task is one file here and one line in ``tasks.TASKS``.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
from jax.sharding import Mesh

from vlbeit_jax.data.pipeline import Batches
from vlbeit_jax.data.shard import HostShard
from vlbeit_jax.objectives.base import Objective
from vlbeit_jax.training.state import TrainState

Tree = Any


class Task(Protocol):
    """What the loop needs to know. Constructing one opens and checks all data, before any array exists.

    Attributes:
      objectives: by stream.
      frozen: parameters that are used and never change.
      fingerprints: names to values that must be the same when a run goes on: tokenizers and data sets.
      trained_on: fingerprints of the data sets whose training part is used; evaluation keeps away from it.
      chance: accuracy of a uniform guess, by term; logged beside each accuracy.
    """

    objectives: Mapping[str, Objective]
    frozen: Tree
    fingerprints: Mapping[str, Any]
    trained_on: Sequence[str]
    chance: Mapping[str, float]

    def init_params(self, key: jax.Array) -> Tree:
        """Fresh parameters, boxed with their logical axes."""
        ...

    def training_batches(self, stream: str, start: int, shard: HostShard) -> Batches:
        """This host's rows of the stream's batches from ``start`` on."""
        ...

    def save_assets(self, workdir: pathlib.Path) -> None:
        """Keeps in the run's folder what its results and their evaluation depend on: tokenizers, and what was trained on."""
        ...

    def before_training(self, state: TrainState, mesh: Mesh, shard: HostShard) -> TrainState:
        """What has to happen once on a fresh state, before step 0."""
        ...

    def evaluate(self, state: TrainState, mesh: Mesh, shard: HostShard) -> dict[str, float]:
        """Figures on held-back data, ``term/name`` to value."""
        ...
