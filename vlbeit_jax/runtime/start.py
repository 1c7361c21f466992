"""Starts or resumes a run: from a ``Config`` to the arguments of ``train_loop``."""

import contextlib
import functools
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from vlbeit_jax import progress
from vlbeit_jax.data import pipeline
from vlbeit_jax.data.bad_records import Replaced
from vlbeit_jax.data.pipeline import Examples
from vlbeit_jax.errors import Diverged
from vlbeit_jax.runtime import signals, watchdog
from vlbeit_jax.runtime.contributions import Contributions
from vlbeit_jax.runtime.first_lines import first_lines
from vlbeit_jax.runtime.history import History
from vlbeit_jax.runtime.hooks.base import Hook
from vlbeit_jax.runtime.hooks.evaluate import Abandoned
from vlbeit_jax.runtime.hooks.progress import recorded
from vlbeit_jax.runtime.hooks_of_run import bad_records_of, hooks_of
from vlbeit_jax.runtime.hosts import is_primary
from vlbeit_jax.runtime.loop import train_loop
from vlbeit_jax.runtime.missing_evaluation import evaluate_if_missing
from vlbeit_jax.runtime.new_state import new_state
from vlbeit_jax.runtime.resume import bytes_of, require_checkpoints, resume
from vlbeit_jax.runtime.rollback import roll_back, save_at_once
from vlbeit_jax.runtime.run import Run
from vlbeit_jax.runtime.speed import peak_here
from vlbeit_jax.runtime.stopping import compiling, raise_for_signal
from vlbeit_jax.runtime.timer import Timer
from vlbeit_jax.runtime.writer import Writer
from vlbeit_jax.storage import explains_storage, require_room
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.abstract import step_and_state
from vlbeit_jax.training.checkpoint import Checkpointer
from vlbeit_jax.training.mesh import put_batch, put_replicated
from vlbeit_jax.training.optimizer import describe_factors
from vlbeit_jax.training.saved_run import CHECKPOINTS, CONFIG_FILE
from vlbeit_jax.training.state import TrainState, declarations
from vlbeit_jax.training.trainable import describe_trained

Tree = Any


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
    config, workdir = run.config, run.workdir
    step, (make_state, abstract) = step_and_state(run.task, config, run.mesh)
    start_from = run.open_start(abstract.params)
    with contextlib.ExitStack() as stack:
        stack.enter_context(progress.hidden())
        changes = run.claim_folder(stack)
        run.hosts.on_primary(lambda: require_checkpoints(workdir))
        checkpointer = Checkpointer(
            workdir / CHECKPOINTS, config.run.keep_last, config.run.keep_every
        )
        stack.callback(checkpointer.close)
        start, state, told = resume(run, checkpointer, abstract)
        writer = Writer(
            workdir,
            start,
            config.run.steps,
            run.opened.headlines,
            lambda: step.total_compile_seconds,
            enabled=is_primary(),
        )
        stack.callback(writer.close)
        step.compiling = lambda streams: compiling(writer, streams)
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
        frozen = put_replicated(run.opened.frozen, run.mesh)
        examples = {name: run.data.examples(name) for name in run.task.streams()}
        history = History(workdir, enabled=is_primary())
        with (
            recorded(history, run, start, timer) as made,
            writer.noting_errors(),
            explains_storage(workdir),  # So that both tell what the command tells.
        ):
            bad_records = bad_records_of(run, checkpointer.describe(start) if start else {}, writer)
            parts = (examples, frozen, checkpointer, writer, timer, profile, made, bad_records)
            hooks_now = functools.partial(hooks_of, run, *parts)
            hooks = hooks_now()
            timer.steps_begin()
            if start:
                evaluate_if_missing(run, state, writer, timer)
            take_steps = functools.partial(
                _train, run, step, frozen, examples, writer, timer, bad_records.add
            )
            go_back = functools.partial(roll_back, run, checkpointer, abstract, made, writer)
            return _train_with_rollbacks(take_steps, go_back, state, hooks, hooks_now)


def _train_with_rollbacks(
    take_steps: Callable[[TrainState, Sequence[Hook]], TrainState],
    go_back: Callable[[Diverged], tuple[TrainState, Callable[[], None]]],
    state: TrainState,
    hooks: Sequence[Hook],
    hooks_now: Callable[[], Sequence[Hook]],
) -> TrainState:
    """Takes the steps, again after each rollback.

    A signal does not cut a rollback off, and one that has come before it is not forgotten.
    """
    with signals.noted():
        while True:
            try:
                return take_steps(state, hooks)
            except Diverged as error:
                state, note = go_back(error)
                hooks = hooks_now()
                save_at_once(hooks, state)
                note()


def _say_what_is_trained(run: Run, writer: Writer, state: TrainState) -> None:
    """Says which parameters are trained if not all are, and at which rates if they differ."""
    optimizer, origin = run.config.optimizer, run.config.run.start_from
    if trained := describe_trained(optimizer.trainable, run.trained, state.params, origin):
        writer.say(trained)
    if factors := describe_factors(optimizer, declarations(run.task.init).info):
        writer.say(factors)


def _train(
    run: Run,
    step: Any,
    frozen: Tree,
    examples: Mapping[str, Examples],
    writer: Writer,
    timer: Timer,
    note_replaced: Callable[[str, Sequence[Replaced]], None],
    state: TrainState,
    hooks: Sequence[Hook],
) -> TrainState:
    """Opens the data at the right place and runs the loop.

    Raises:
      Interrupted: Ctrl-C has come, and the step is saved.
      Preempted: SIGTERM has come, and the step is saved.
    """
    start, steps, schedule = int(state.step), run.config.run.steps, run.schedule
    contributions = Contributions.of(run, examples)
    if shares := contributions.shares():
        writer.say(shares)
    feeds = {
        name: pipeline.batches(
            examples[name],
            stream.batch_size,
            schedule.used_before(name, start),
            run.shard,
            run.config.loader,
            functools.partial(note_replaced, name),
        )
        for name, stream in run.task.streams().items()
    }
    try:
        state, ending = train_loop(
            step,
            state,
            frozen,
            feeds,
            schedule,
            hooks,
            timer,
            steps=steps,
            put=lambda rows: {name: put_batch(batch, run.mesh) for name, batch in rows.items()},
        )
    except Abandoned as error:
        raise_for_signal(error.reason, error.step, writer)
        raise
    if told := contributions.text(int(state.step)):
        writer.say(told)
    raise_for_signal(ending, int(state.step), writer)
    return state


def _say_changes(writer: Writer, title: str, changes: list[str]) -> None:
    if changes:
        writer.say("\n  ".join([f"{CONFIG_FILE} {title}", *changes]))
