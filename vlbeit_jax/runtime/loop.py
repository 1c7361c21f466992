"""The one train loop: a task, a state, one step after the other; checkpoints, evaluations and logs between them."""

import contextlib
import dataclasses
import pathlib
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from vlbeit_jax.config import Config
from vlbeit_jax.config_parse import flat, to_dict
from vlbeit_jax.data.pipeline import Batches
from vlbeit_jax.data.shard import HostShard
from vlbeit_jax.errors import UsageError
from vlbeit_jax.runtime.cluster import Agreement, is_first
from vlbeit_jax.runtime.log import Log
from vlbeit_jax.runtime.throughput import Throughput, peak_of_all_devices
from vlbeit_jax.runtime.versions import versions
from vlbeit_jax.tasks import TASKS
from vlbeit_jax.tasks.abstract import abstract_task
from vlbeit_jax.tasks.base import Task
from vlbeit_jax.tasks.flops import flops_of_streams, total
from vlbeit_jax.training import run_folder
from vlbeit_jax.training.checkpoint import Checkpointer, check_same
from vlbeit_jax.training.optimizer import learning_rate, make_optimizer
from vlbeit_jax.training.schedule import Schedule
from vlbeit_jax.training.sharding import (
    check_batch,
    host_shard,
    make_mesh,
    placement,
    put_batch,
    put_replicated,
)
from vlbeit_jax.training.state import TrainState, state_maker
from vlbeit_jax.training.step import TrainStep, make_train_step
from vlbeit_jax.types import Stream

PROFILE = "profile"
# Fields of a model's section that do not change what is trained: a run may go on with other values. (Of a teacher the weights
# themselves are compared, and not where they lie.)
MAY_CHANGE = {
    "attention",
    "remat",
    "scan",
    "teacher_weights",
    "collapse_below",
    "kmeans_batches",
    "kmeans_iterations",
    "reseed_below",
}


def train(
    config: Config, workdir: pathlib.Path, profile: tuple[int, int] | None = None
) -> TrainState:
    """Trains until ``run.steps``, from the newest checkpoint in ``workdir`` if there is one.

    Args:
      config: the run.
      workdir: its folder, the same one on all hosts.
      profile: first step of a trace in ``workdir/profile``, and the step before which it ends.

    Returns:
      The final state.

    Raises:
      UsageError: before anything is compiled, if configuration, data, mesh or folder do not fit together.
      FloatingPointError: a loss or gradient is not finite; nothing of that step is saved.
    """
    talk = Agreement(config.cluster.initialization_timeout)
    task, mesh, schedule = talk.each(lambda: _checked(config))
    talk.check(_facts(config, task, workdir))
    optimizer = make_optimizer(config.optimizer, config.run.steps)
    make_state, abstract = state_maker(
        task.init_params,
        lambda: {n: o.init_extra() for n, o in task.objectives.items()},
        optimizer,
        mesh,
    )
    shard = host_shard(mesh)
    if (
        config.run.start_from and not (workdir / run_folder.CHECKPOINTS).is_dir()
    ):  # Or nothing is read from there any more.
        talk.each(
            lambda: run_folder.check_start(pathlib.Path(config.run.start_from), abstract.params)
        )
    with contextlib.ExitStack() as stack:
        talk.first(lambda: _claim(stack, workdir, config))
        talk.each(lambda: _see(workdir))
        checkpointer = stack.enter_context(
            closing(
                Checkpointer(
                    workdir / run_folder.CHECKPOINTS, config.run.keep_last, config.run.keep_every
                )
            )
        )
        start = checkpointer.latest()
        talk.check({"newest checkpoint": start})
        if start is None:
            talk.first(lambda: task.keep_inputs(workdir))
            state = make_state(config.run.seed)
            if config.run.start_from:
                params = talk.each(
                    lambda: run_folder.starting_params(
                        pathlib.Path(config.run.start_from), abstract.params
                    )
                )
                state = dataclasses.replace(state, params=params)
            state = task.before_training(state, mesh, shard)
        else:
            check_same(
                checkpointer.describe(start)["must_match"], must_match(config, task), workdir
            )
            if start > config.run.steps:
                raise UsageError(
                    f"{workdir} has taken {start} steps, more than run.steps={config.run.steps}; name another --workdir"
                )
            state = TrainState.restored(checkpointer.restore(start, abstract.saved()))
        talk.first(lambda: run_folder.write_config(workdir, config))
        step = make_train_step(
            task.objectives,
            optimizer,
            config.run.seed,
            config.run.accumulate,
            mesh,
            placement(abstract.params),
        )
        return _Loop(config, task, mesh, schedule, checkpointer, shard, workdir, step, profile).run(
            state
        )


def _checked(config: Config) -> tuple[Task, Mesh, Schedule]:
    """What can be opened and checked without a word to the other hosts."""
    task, mesh, schedule = (
        TASKS[config.task](config),
        make_mesh(config.mesh),
        Schedule.parse(config.run.schedule),
    )
    for stream in schedule.streams:
        check_batch(stream, getattr(config.data, stream).batch_size, config.run.accumulate, mesh)
    return task, mesh, schedule


def _claim(stack: contextlib.ExitStack, workdir: pathlib.Path, config: Config) -> None:
    stack.enter_context(run_folder.claimed(workdir))
    if not (workdir / run_folder.CONFIG_FILE).is_file():
        run_folder.write_config(
            workdir, config
        )  # First of all: a folder with anything else in it and no configuration is refused.


def _see(workdir: pathlib.Path) -> None:
    if not (workdir / run_folder.CONFIG_FILE).is_file():
        raise UsageError(
            f"--workdir={workdir} is not the folder that process 0 has made; name one on storage that all hosts share"
        )


def _facts(config: Config, task: Task, workdir: pathlib.Path) -> dict[str, Any]:
    """What all hosts have to have in common, flat, so that a message can name it."""
    facts = {f"config.{name}": value for name, value in flat(to_dict(config)).items()}
    facts |= {f"fingerprint of {name}": value for name, value in task.fingerprints.items()}
    facts |= {f"version of {name}": value for name, value in versions().items()}
    devices = {
        "kind": jax.local_devices()[0].device_kind,
        "on a host": jax.local_device_count(),
        "in all": jax.device_count(),
    }
    return (
        facts
        | {f"devices, {name}": value for name, value in devices.items()}
        | {"--workdir": str(workdir)}
    )


def must_match(config: Config, task: Task) -> dict[str, Any]:
    """What a checkpoint and the run that goes on from it have to agree on, flat, so that a message can name it."""
    shape = "model" if config.task == "pretrain" else "visual_tokenizer"
    found: dict[str, Any] = {
        "task": config.task,
        "run.seed": config.run.seed,
        "run.schedule": config.run.schedule,
    }
    found |= {
        f"{shape}.{name}": value
        for name, value in to_dict(getattr(config, shape)).items()
        if name not in MAY_CHANGE
    }
    for stream in Schedule.parse(config.run.schedule).streams:
        data = getattr(config.data, stream)
        found |= {
            f"data.{stream}.batch_size": data.batch_size,
            f"data.{stream}.weights": list(data.weights),
        }  # As JSON has it.
    return found | dict(task.fingerprints)


@contextmanager
def interrupts() -> Iterator[threading.Event]:
    """Turns the first Ctrl-C into an event that is asked for between steps; the second one ends at once.

    Raised anywhere, a KeyboardInterrupt may end up in a callback or a finaliser, where Python drops it.
    """
    asked = threading.Event()
    if (
        threading.current_thread() is not threading.main_thread()
    ):  # Only there can signals be handled.
        yield asked
        return

    def note(*_: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


class _Loop:
    def __init__(
        self,
        config: Config,
        task: Task,
        mesh: Mesh,
        schedule: Schedule,
        checkpointer: Checkpointer,
        shard: HostShard,
        workdir: pathlib.Path,
        step: TrainStep,
        profile: tuple[int, int] | None,
    ):
        self.config, self.task, self.mesh, self.schedule = config, task, mesh, schedule
        self.checkpointer, self.shard, self.workdir = checkpointer, shard, workdir
        self.step = step
        self.rate = learning_rate(config.optimizer, config.run.steps)
        self.frozen = put_replicated(task.frozen, mesh)
        self.profile, self._tracing = profile, False

    def run(self, state: TrainState) -> TrainState:
        run, start = self.config.run, int(state.step)
        log = Log(self.workdir, start, run.steps, self.task.chance, writes=is_first())
        if start == run.steps:
            log.say(f"{self.workdir}: finished already, {start} steps taken")
            log.close()
            return state
        where = f"{jax.device_count()} device(s)" + (
            f" of {jax.process_count()} hosts" if jax.process_count() > 1 else ""
        )
        log.say(f"{self.workdir}: {self._size(state)}, from step {start} to {run.steps} on {where}")
        streams = {
            s: self.task.training_batches(s, self.schedule.used_before(s, start), self.shard)
            for s in self.schedule.streams
        }
        try:
            with interrupts() as interrupted:
                return self._steps(state, start, streams, log, interrupted)
        except KeyboardInterrupt:
            log.say(
                f"interrupted; the same command goes on from step {self.checkpointer.latest() or 0}"
            )
            raise
        finally:
            log.close()
            for batches in streams.values():
                batches.close()

    def _steps(
        self,
        state: TrainState,
        start: int,
        streams: dict[Stream, Batches],
        log: Log,
        interrupted: threading.Event,
    ) -> TrainState:
        run = self.config.run
        # Counted before the clock starts: tracing for it takes seconds at base size.
        # The networks are those of the open task, because folders may define them.
        flops = flops_of_streams(
            abstract_task(self.config)._replace(
                objectives=self.task.objectives, frozen=self.task.frozen
            )
        )
        clock = Throughput(peak_of_all_devices())
        pending: dict[str, Any] = {}
        for step in range(start, run.steps):
            if interrupted.is_set():
                raise KeyboardInterrupt
            self._profile(step)
            with clock.away("data"):
                rows = {name: next(streams[name]) for name in self.schedule.streams_at(step)}
            batches = {name: put_batch(batch, self.mesh) for name, batch in rows.items()}
            compiled = self.step.total_compile_seconds
            state, metrics = self.step(state, self.frozen, batches)
            clock.spent("compilation", self.step.total_compile_seconds - compiled)
            clock.did(total(flops[stream] for stream in batches))
            self._take(
                log, pending, clock
            )  # The previous step's figures: fetching this one's would wait for the device.
            pending = {"step": step, "metrics": metrics}
            done = step + 1
            if (
                any(done % every == 0 for every in (run.log_every, run.checkpoint_every))
                or done == run.steps
            ):
                self._take(
                    log, pending, clock
                )  # Also before a checkpoint, so that none is written of a step that is not finite.
                pending = {}
            if done % run.log_every == 0 or done == run.steps:
                log.write_training(done, clock.line())
            self._between_steps(done, state, log, clock)
        self._profile(run.steps)
        return state

    def _take(self, log: Log, pending: dict[str, Any], clock: Throughput) -> None:
        if not pending:
            return
        metrics = {name: float(value) for name, value in jax.device_get(pending["metrics"]).items()}
        bad = {name: value for name, value in metrics.items() if not np.isfinite(value)}
        log.add(metrics | {"learning_rate": float(np.asarray(self.rate(pending["step"])))})
        if bad:
            log.write_training(pending["step"] + 1, clock.line())
            raise FloatingPointError(
                f"step {pending['step']}: not finite: {bad}; the newest good checkpoint is of step {self.checkpointer.latest()}; "
                "lower optimizer.peak_lr or optimizer.clip_norm"
            )

    def _between_steps(self, done: int, state: TrainState, log: Log, clock: Throughput) -> None:
        run, last = self.config.run, done == self.config.run.steps
        if run.evaluate_every and (done % run.evaluate_every == 0 or last):
            with clock.away("evaluation"):
                log.write_evaluation(done, self.task.evaluate(state, self.mesh, self.shard))
        if done % run.checkpoint_every == 0 or last:
            description = {
                "step": done,
                "config": to_dict(self.config),
                "must_match": must_match(self.config, self.task),
                "trained_on": list(self.task.trained_on),
                "versions": versions(),
            }
            with clock.away("checkpoint"):
                self.checkpointer.save(done, state.saved(), description)

    def _profile(self, step: int) -> None:
        """Starts and ends the trace of the steps that were asked for, on the first host."""
        if self.profile is None or not is_first():
            return
        if step == self.profile[0]:
            jax.profiler.start_trace(self.workdir / PROFILE)
            self._tracing = True
        elif self._tracing and step >= self.profile[1]:
            jax.profiler.stop_trace()
            self._tracing = False

    def _size(self, state: TrainState) -> str:
        return f"{self.config.task}, {sum(leaf.size for leaf in jax.tree.leaves(state.params)):,} parameters"
