"""Starts or resumes a run: from a ``Config`` to everything that its steps need."""

import contextlib
import pathlib
import time

import jax

from vlbeit_jax import progress
from vlbeit_jax.runtime import watchdog
from vlbeit_jax.runtime.first_lines import first_lines
from vlbeit_jax.runtime.hosts import is_primary
from vlbeit_jax.runtime.missing_evaluation import evaluate_if_missing
from vlbeit_jax.runtime.new_state import new_state
from vlbeit_jax.runtime.resume import bytes_of, require_checkpoints, resume
from vlbeit_jax.runtime.run import Run
from vlbeit_jax.runtime.speed import peak_here
from vlbeit_jax.runtime.steps import Steps
from vlbeit_jax.runtime.stopping import compiling
from vlbeit_jax.runtime.timer import Timer
from vlbeit_jax.runtime.writer import Writer
from vlbeit_jax.storage import explains_storage, require_room
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.abstract import step_and_state
from vlbeit_jax.training.checkpoint import Checkpointer
from vlbeit_jax.training.optimizer import describe_factors
from vlbeit_jax.training.saved_run import CHECKPOINTS, CONFIG_FILE
from vlbeit_jax.training.state import TrainState, declarations
from vlbeit_jax.training.step import TrainStep
from vlbeit_jax.training.trainable import describe_trained


def train(
    config: Config, workdir: pathlib.Path, profile: tuple[int, int] | None = None
) -> TrainState:
    """Trains until ``run.steps``, from the newest checkpoint in ``workdir`` if there is one.

    Args:
      config: of the run.
      workdir: its folder, the same one on all hosts.
      profile: first step of a trace in ``workdir/profile``, and the step before which it ends.

    Returns:
      The final state.

    Raises:
      UsageError: configuration, data, mesh or folder do not fit together. The train step has not
        been compiled at that point.
      Damaged: there are checkpoints, but none can be restored.
      StorageError: the disk of the folder is full, or fails.
      BadData: too many records cannot be used, or a shard is not the one that was written.
      Diverged: too many steps were not finite; they have changed nothing.
      Preempted: SIGTERM has come, and the step is saved.
      Interrupted: Ctrl-C has come, and the step is saved.
    """
    limit = config.run.stuck_minutes * 60
    with explains_storage(workdir), watchdog.watching(limit):
        began = time.monotonic()
        return _train_in(Run.open(config, workdir), profile, began)


def _train_in(run: Run, profile: tuple[int, int] | None, began: float) -> TrainState:
    """Opens the folder, restores or makes the state, and takes the steps that are left."""
    config, workdir = run.config, run.workdir
    step, (make_state, abstract) = step_and_state(run.task, config, run.mesh)
    start_from = run.open_start(abstract.params)
    with contextlib.ExitStack() as stack:
        stack.enter_context(progress.hidden())
        changes = run.claim_folder(stack)
        # Before the checkpointer is opened, which makes the folder if it is missing.
        run.hosts.on_primary(lambda: require_checkpoints(workdir))
        checkpointer = Checkpointer(
            workdir / CHECKPOINTS, config.run.keep_last, config.run.keep_every
        )
        stack.callback(checkpointer.close)
        start, state, told = resume(run, checkpointer, abstract)
        writer = _writer(run, step, start)
        stack.callback(writer.close)
        for each in told:
            writer.say(each)
        timer = Timer(
            peak_here().flops_per_second,
            lambda: step.total_compile_seconds,
            time.monotonic() - began,
        )
        if state is not None and start == config.run.steps:
            evaluate_if_missing(run, state, writer, timer)
            writer.say(f"{workdir}: already finished, at step {start} of {start}")
            _say_changes(writer, "still has the values of its last step:", changes)
            return state
        run.hosts.on_primary(lambda: require_room(workdir, bytes_of(abstract), "a checkpoint"))
        parameters = sum(leaf.size for leaf in jax.tree.leaves(abstract.params))
        writer.say(first_lines(run, parameters, start))
        if start_from is not None:
            writer.say(f"{workdir} {start_from}")
        if state is None:
            state = new_state(run, make_state(config.run.seed), start_from)
        _say_changes(writer, "changes with the first step:", changes)
        _say_what_is_trained(run, writer, state)
        return Steps(run, step, abstract, checkpointer, writer, timer, profile).take(state, start)


def _writer(run: Run, step: TrainStep, start: int) -> Writer:
    """Returns what writes the log, and tells it of each compilation, which takes minutes."""
    writer = Writer(
        run.workdir,
        start,
        run.config.run.steps,
        run.opened.headlines,
        lambda: step.total_compile_seconds,
        enabled=is_primary(),
    )
    step.compiling = lambda streams: compiling(writer, streams)
    return writer


def _say_what_is_trained(run: Run, writer: Writer, state: TrainState) -> None:
    """Says which parameters are trained if not all are, and at which rates if they differ."""
    optimizer, origin = run.config.optimizer, run.config.run.start_from
    if trained := describe_trained(optimizer.trainable, run.trained, state.params, origin):
        writer.say(trained)
    if factors := describe_factors(optimizer, declarations(run.task.init).info):
        writer.say(factors)


def _say_changes(writer: Writer, title: str, changes: list[str]) -> None:
    if changes:
        writer.say("\n  ".join([f"{CONFIG_FILE} {title}", *changes]))
