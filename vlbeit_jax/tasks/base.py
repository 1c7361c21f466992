"""A task in three stages: described, opened, with training data.

A ``Task`` is a frozen value that opens nothing: enough to compile ahead of time and to count
operations. An ``OpenTask`` adds what inference needs: tokenizers, frozen weights. ``TrainingData``
adds the training sets. All tasks share one loop, one step and one checkpointer. A new task is one
file here and one line in ``tasks.TASKS``.
"""

import dataclasses
import pathlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import jax
from jax.sharding import Mesh

from vlbeit_jax.config.common import LoaderConfig, RunConfig
from vlbeit_jax.data.examples.base import Spec
from vlbeit_jax.data.pipeline import Examples
from vlbeit_jax.data.records import Records
from vlbeit_jax.data.shard import HostShard
from vlbeit_jax.data.source import PreparedSet
from vlbeit_jax.objectives.base import Objective
from vlbeit_jax.shapes import Tree
from vlbeit_jax.tasks.figures import Evaluator, Headline
from vlbeit_jax.training.state import TrainState
from vlbeit_jax.training.warm_start import WarmStart
from vlbeit_jax.types import Kind


@dataclasses.dataclass(frozen=True)
class Stream:
    """One kind of training row; its name is its key in ``Task.streams()``.

    Attributes:
      objective: its loss.
      example: shape and type of a row's arrays.
      batch_size: rows of a step, over all hosts.
      tokens: per row that pass through the trained Transformer.
    """

    objective: Objective
    example: Mapping[str, Spec]
    batch_size: int
    tokens: int


@dataclasses.dataclass(frozen=True)
class Place:
    """The surroundings of a training run, as far as a task needs them.

    Attributes:
      run: seed, periods and lengths.
      loader: reading ahead.
      mesh: of devices.
      shard: this host's rows of each batch.
    """

    run: RunConfig
    loader: LoaderConfig
    mesh: Mesh
    shard: HostShard


class Task(Protocol):
    """What is trained: a frozen, hashable dataclass, whose settings are ``config.task``.

    A stream's settings are a section with the stream's name. No setting may have the name of a
    method. Only ``resolve`` and ``open`` read files. ``no_averages``, if it is there and not empty,
    says why averaged parameters make no sense, and what to do.

    Attributes:
      kind: its name in ``tasks.TASKS``.
    """

    kind: ClassVar[str]

    @property
    def schedule(self) -> str:
        """Returns the streams of each step; see ``training.schedule``."""
        ...

    def problems(self) -> Iterable[str]:
        """Returns what is wrong between settings; each text begins with a setting's name."""
        ...

    def training_problems(self) -> Iterable[str]:
        """Returns what keeps these settings from training, such as a source that is not named."""
        ...

    def resolve(self) -> Self:
        """Returns the task completed from the folders that it names, such as a tokenizer's sizes.

        Raises:
          UsageError: a folder is missing, or what it holds does not fit the configuration.
        """
        ...

    def init(self, key: jax.Array) -> Tree:
        """Returns parameters, boxed with their ``ParamInfo``."""
        ...

    def streams(self) -> Mapping[str, Stream]:
        """Returns the streams of the schedule, in the order in which their gradients are added."""
        ...

    def frozen(self) -> Tree:
        """Returns the shapes of frozen parameters, which are used and not trained."""
        ...

    def warm_start(self) -> WarmStart:
        """Returns which parameters of ``run.start_from`` may be missing, left over or adapted."""
        ...

    def open(self, folder: pathlib.Path | None = None) -> "OpenTask":
        """Opens tokenizers and frozen weights: those that the settings name, or a run's copies.

        Raises:
          UsageError: one is missing or does not fit the model.
        """
        ...


class OpenTask(Protocol):
    """A task with everything but training data."""

    @property
    def task(self) -> Task:
        """Returns the task's description, resolved."""
        ...

    @property
    def frozen(self) -> Tree:
        """Returns parameters that never change, in the types they are used in."""
        ...

    @property
    def fingerprints(self) -> Mapping[str, Any]:
        """Returns names and values that must be the same when a run resumes."""
        ...

    @property
    def chance(self) -> Mapping[str, float]:
        """Returns the accuracy of a guess without input, by loss; logged beside the accuracy."""
        ...

    @property
    def headlines(self) -> Sequence[Headline]:
        """Returns figures that log lines show besides losses and accuracies."""
        ...

    def save_assets(self, folder: pathlib.Path) -> None:
        """Copies into a run's folder what its results depend on, such as tokenizers."""

    def training_data(self, run: RunConfig) -> "TrainingData":
        """Opens and checks all training sets.

        Args:
          run: its seed decides the order of examples, and its periods whether held-out records
            are needed.

        Raises:
          UsageError: one is missing, of the wrong kind, or holds out what another trains on.
        """
        ...

    def evaluators(self, data: "TrainingData", place: Place) -> Sequence[Evaluator]:
        """Returns the evaluations of a training run, on the held-out part of its data."""
        ...

    def prepare_state(self, state: TrainState, data: "TrainingData", place: Place) -> TrainState:
        """Prepares a new run's state once, before step 0."""
        ...


@runtime_checkable
class FineTuned(Protocol):
    """An open task whose model is evaluated on annotated sets, and predicts for new records.

    Attributes:
      kind: of the sets that ``evaluate`` takes.
      method: of a loaded model that gives its predictions in Python (``api.predictions``).
      needs: what a record to predict for must have, of ``image``, ``images`` (two), ``text`` and
        ``captions``, among which one is chosen.
    """

    kind: Kind
    method: str
    needs: Collection[str]

    def abstract_params(self) -> Tree:
        """Returns the shapes of the parameters."""

    def abstract_model_state(self) -> Tree:
        """Returns the shapes of what inference needs of the model state, by stream."""

    def for_inference(self, params: Tree, model_state: Tree) -> Tree:
        """Returns what ``evaluate`` and ``predict`` take, from both trees of a checkpoint."""

    def evaluate(
        self, params: Tree, sets: Sequence[PreparedSet], split: str, place: Place
    ) -> dict[str, Any]:
        """Returns results ready for JSON.

        Args:
          params: on the devices.
          sets: of kind ``kind``.
          split: of each set.
          place: devices, seed.

        Returns:
          ``metrics``: figures by name; ``protocol``: all that a figure depends on besides weights
          and data, such as the view of an image; ``groups``: their number; and more.

        Raises:
          UsageError: a set does not fit the model.
        """
        ...

    def predict(
        self, params: Tree, records: Records, top: int, place: Place
    ) -> Iterator[dict[str, Any]]:
        """Yields a prediction per record, in their order, ready for JSON.

        Args:
          params: on the devices.
          records: with ``id``, and what ``needs`` names; two images are ``image`` and
            ``second_image``.
          top: most likely answers to list.
          place: devices.
        """
        ...


class TrainingData(Protocol):
    """The training sets of a task, open."""

    @property
    def fingerprints(self) -> Mapping[str, Any]:
        """Returns names and values that must be the same when a run resumes."""
        ...

    @property
    def trained_on(self) -> Sequence[str]:
        """Returns fingerprints of the sets that are trained on; evaluation avoids them."""
        ...

    @property
    def sources(self) -> Mapping[str, Sequence[PreparedSet]]:
        """Returns the sets of each stream, for the first lines of a run."""
        ...

    def examples(self, stream: str) -> Examples:
        """Returns the stream's endless examples, by random access."""
        ...

    def save_seen(self, folder: pathlib.Path) -> None:
        """Writes into a run's folder the keys of the records that it trains on."""
