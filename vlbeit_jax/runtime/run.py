"""A run as every process sees it, opened and checked before the first array exists."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from vlbeit_jax.config.common import ALL
from vlbeit_jax.config.schema import fixed_settings
from vlbeit_jax.data.shard import HostShard
from vlbeit_jax.data.source import TRAIN, VALIDATION
from vlbeit_jax.errors import UsageError
from vlbeit_jax.folders import run_folder
from vlbeit_jax.runtime.hosts import Hosts
from vlbeit_jax.runtime.identity import check_same, host_facts
from vlbeit_jax.runtime.run_folder import config_changes, locked, write_config
from vlbeit_jax.runtime.shared_memory import require_shared_memory
from vlbeit_jax.shapes import Tree
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.assets import check_start_tokenizers
from vlbeit_jax.tasks.base import OpenTask, Place, Task, TrainingData
from vlbeit_jax.tasks.runs import read_config
from vlbeit_jax.training.mesh import check_batch, host_shard, make_mesh
from vlbeit_jax.training.param_names import parameter_names
from vlbeit_jax.training.saved_run import CONFIG_FILE, newest_step
from vlbeit_jax.training.schedule import Schedule
from vlbeit_jax.training.start_from import Start
from vlbeit_jax.training.state import declarations
from vlbeit_jax.training.trainable import Trained, check_fixed, trained_parameters

# The optimizer has moments for the parameters that this setting selects, and for no others.
TRAINABLE = "optimizer.trainable"


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that can start.

    Attributes:
      config: its whole configuration.
      workdir: its folder.
      hosts: its processes.
      task: what is trained, resolved.
      opened: the task with its tokenizers and frozen weights.
      data: its training sets.
      mesh: its devices.
      shard: this host's part of each batch.
      schedule: streams of each step.
    """

    config: Config
    workdir: pathlib.Path
    hosts: Hosts
    task: Task
    opened: OpenTask
    data: TrainingData
    mesh: Mesh
    shard: HostShard
    schedule: Schedule

    @classmethod
    def open(cls, config: Config, workdir: pathlib.Path) -> "Run":
        """Opens the task with its data, and compares everything between the hosts.

        Raises:
          UsageError: data, devices or batch sizes do not fit together, or the hosts differ.
        """
        hosts = Hosts(config.cluster.initialization_timeout)
        task, opened, data, mesh = hosts.all_or_none(lambda: _open(config))
        fingerprints = {**opened.fingerprints, **data.fingerprints}
        hosts.assert_equal(host_facts(config, fingerprints, workdir))
        schedule = Schedule.parse(config.task.schedule)
        return cls(config, workdir, hosts, task, opened, data, mesh, host_shard(mesh), schedule)

    @property
    def place(self) -> Place:
        """Where the run takes place."""
        return Place(self.config.run, self.config.loader, self.mesh, self.shard)

    @property
    def must_match(self) -> dict[str, Any]:
        """What must equal the checkpoint's on resume, by a name for messages."""
        config = self.config
        facts = {"task.kind": config.task.kind, "task.schedule": config.task.schedule}
        facts |= {"run.seed": config.run.seed, TRAINABLE: config.optimizer.trainable}
        facts |= fixed_settings(config.task, "task")
        return facts | {**self.opened.fingerprints, **self.data.fingerprints}

    def check_resumes(self, saved: Mapping[str, Any]) -> None:
        """Raises a ``UsageError`` unless ``must_match`` equals what a checkpoint has saved."""
        # Runs of version 0.2.0 and before trained all parameters, and did not say so.
        check_same({TRAINABLE: ALL} | dict(saved), self.must_match, self.workdir)

    @property
    def trained(self) -> Trained:
        """The parameters that the run trains."""
        return trained_parameters(
            self.config.optimizer.trainable, declarations(self.task.init).info
        )

    def open_start(self, abstract: Tree) -> Start | None:
        """Returns the start that ``run.start_from`` names; None without one, or when resuming.

        Args:
          abstract: shapes of the parameters.

        Raises:
          UsageError: the start does not fit, or the hosts find different checkpoints; or parameters
            that it does not give would stay at random values.
        """

        def open_start() -> Start | None:
            # A run with checkpoints of its own needs no start, which may be gone by now.
            if not self.config.run.start_from or newest_step(self.workdir) is not None:
                return None
            folder = run_folder(self.config.run.start_from)
            read_config(folder, "config.run.start_from")  # Raises if the folder is not a run's.
            rules = self.task.warm_start()
            kept = [name for name in parameter_names(abstract) if not rules.is_fresh(name)]
            check_start_tokenizers(folder, self.opened.fingerprints, kept)
            start = Start.open(folder, abstract, rules)
            check_fixed(self.config.optimizer.trainable, self.trained, start.fresh, folder)
            return start

        start = self.hosts.all_or_none(open_start)
        self.hosts.assert_equal({"newest checkpoint in run.start_from": start and start.step})
        return start

    def claim_folder(self, stack: contextlib.ExitStack) -> list[str]:
        """Creates or reopens the folder, and locks it until ``stack`` closes.

        Returns:
          How the configuration differs from the folder's ``config.json``; empty on all processes
          but the primary.

        Raises:
          UsageError: the folder cannot be used, or the hosts do not share it.
        """
        changes: list[str] = []

        def claim() -> None:
            stack.enter_context(locked(self.workdir))
            # The first file of all: a folder with other files but no configuration is refused.
            if not (self.workdir / CONFIG_FILE).is_file():
                write_config(self.workdir, self.config)
            changes.extend(config_changes(self.workdir, self.config))

        def see() -> None:
            if not (self.workdir / CONFIG_FILE).is_file():
                raise UsageError(
                    f"--workdir={self.workdir} is not the folder that process 0 has created; "
                    "choose one on storage that all hosts share"
                )

        self.hosts.on_primary(claim)
        self.hosts.all_or_none(see)
        return changes


def _open(config: Config) -> tuple[Task, OpenTask, TrainingData, Mesh]:
    """Opens and checks what needs no agreement with the other hosts."""
    task = config.task.resolve()
    opened = task.open()
    data, mesh = opened.training_data(config.run), make_mesh(config.mesh)
    _require_data(config, data)
    for name, stream in task.streams().items():
        check_batch(name, stream.batch_size, config.run.accumulate, mesh)
    resolved = dataclasses.replace(config, task=task)
    require_shared_memory(resolved, jax.process_count(), jax.local_device_count())
    return task, opened, data, mesh


def _require_data(config: Config, data: TrainingData) -> None:
    """Checks the shards of all sets.

    With ``run.verify_shards``, each process reads its share of the sets' bytes.

    Raises:
      BadData: a shard is missing, or is not the one that was written.
    """
    sets = {each.folder: each for opened in data.sources.values() for each in opened}
    splits = (TRAIN, VALIDATION) if config.run.evaluate_every else (TRAIN,)
    for each in sets.values():
        for split in splits:
            if each.count(split):
                each.require_shards(split)
                if config.run.verify_shards:
                    part = jax.process_index(), jax.process_count()
                    each.require_shards(split, whole=True, part=part)
