"""The hooks of a run, in the order in which they are called."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from vlbeit_jax.config.parse import to_dict
from vlbeit_jax.data.pipeline import Examples
from vlbeit_jax.redact import redacted
from vlbeit_jax.runtime.agreement import Agreement
from vlbeit_jax.runtime.contributions import Contributions
from vlbeit_jax.runtime.devices import devices
from vlbeit_jax.runtime.hooks.bad_records import BadRecords
from vlbeit_jax.runtime.hooks.base import Hook
from vlbeit_jax.runtime.hooks.checkpoint import Checkpoint
from vlbeit_jax.runtime.hooks.divergence import Divergence
from vlbeit_jax.runtime.hooks.evaluate import Evaluate, due_after
from vlbeit_jax.runtime.hooks.first_batch import FirstBatch
from vlbeit_jax.runtime.hooks.heartbeat import Heartbeat
from vlbeit_jax.runtime.hooks.log import Log
from vlbeit_jax.runtime.hooks.profile import Profile
from vlbeit_jax.runtime.hooks.progress import Progress
from vlbeit_jax.runtime.hooks.save_config import SaveConfig
from vlbeit_jax.runtime.hooks.stop import Stop
from vlbeit_jax.runtime.hosts import is_primary
from vlbeit_jax.runtime.records import record_ids
from vlbeit_jax.runtime.run import Run
from vlbeit_jax.runtime.timer import Timer
from vlbeit_jax.runtime.versions import versions
from vlbeit_jax.runtime.writer import Writer
from vlbeit_jax.shapes import Tree
from vlbeit_jax.tasks.base import Evaluator
from vlbeit_jax.tasks.flops import flops_of_streams, total
from vlbeit_jax.tasks.reading import reading_of
from vlbeit_jax.training.checkpoint import Checkpointer
from vlbeit_jax.training.optimizer import learning_rate

PROFILE = "profile"
BAD_RECORDS = "bad_records"  # Entry of a checkpoint's description.


def hooks_of(
    run: Run,
    examples: Mapping[str, Examples],
    frozen: Tree,
    checkpointer: Checkpointer,
    writer: Writer,
    timer: Timer,
    profile: tuple[int, int] | None,
    made: Progress,
    bad_records: BadRecords,
) -> list[Hook]:
    """Returns the hooks.

    Args:
      run: that takes the steps.
      examples: of each stream.
      frozen: parameters that are not trained, for evaluation.
      checkpointer: saves the state.
      writer: of log lines and figures.
      timer: of the run.
      profile: first step of a trace, and the step before which it ends.
      made: records the progress in the run's history.
      bad_records: counts examples whose record cannot be used.
    """
    config = run.config
    evaluators = run.opened.evaluators(run.data, run.place)
    checkpoint, stop = _saving(run, checkpointer, timer, made, bad_records, evaluators)
    hooks: list[Hook] = [
        Heartbeat(),
        _log(run, examples, writer, timer, bad_records),
        Divergence(
            checkpointer.latest,
            writer,
            functools.partial(record_ids, run, examples),
            config.run.refused_in_a_row,
            config.run.refused_share,
        ),
        stop,
        made,
    ]
    if is_primary() and config.run.first_batch:
        hooks.append(_first_batch(run, examples, writer))
    if is_primary():
        # Before the checkpoint, whose description holds the same configuration.
        hooks.append(SaveConfig(run.workdir, config))
    hooks.append(checkpoint)
    # What may fail comes after the checkpoint, which saves the step first.
    hooks.append(bad_records)
    hooks.append(
        Evaluate(
            evaluators,
            frozen,
            writer,
            timer,
            ema=bool(config.optimizer.ema_decay),
            stopping=stop.signalled,
        )
    )
    if is_primary() and profile:
        hooks.append(Profile(run.workdir / PROFILE, *profile))
    return hooks


def _log(
    run: Run,
    examples: Mapping[str, Examples],
    writer: Writer,
    timer: Timer,
    bad_records: BadRecords,
) -> Log:
    """Returns the hook that writes the metrics of training."""
    config, contributions = run.config, Contributions.of(run, examples)
    flops = flops_of_streams(run.task, run.trained)  # Tracing takes seconds at base size.
    return Log(
        writer,
        timer,
        every=config.run.log_every,
        learning_rate=learning_rate(config.optimizer, config.run.steps),
        work=lambda index: total(flops[name] for name in run.schedule.streams_at(index)),
        chance=run.opened.chance,
        contributed=lambda step: contributions.figures(step) | bad_records.figures(step),
    )


def bad_records_of(run: Run, saved: Mapping[str, Any], writer: Writer) -> BadRecords:
    """Returns the hook that counts examples whose record cannot be used.

    Args:
      run: that takes the steps.
      saved: description of the checkpoint from which the run resumes; empty for a new run.
      writer: of the log.
    """
    sizes = {name: stream.batch_size for name, stream in run.task.streams().items()}
    agreement = Agreement(run.mesh)
    return BadRecords(
        run.hosts.gathered,
        lambda own: bool(agreement.now(own)),
        writer.say,
        lambda steps: sum(run.schedule.used_before(each, steps) * sizes[each] for each in sizes),
        run.config.run.bad_records,
        saved.get(BAD_RECORDS, {}),
    )


def _first_batch(run: Run, examples: Mapping[str, Examples], writer: Writer) -> Hook:
    """Returns the hook that draws the rows that training begins with."""
    streams = run.task.streams()
    return FirstBatch(
        run.workdir,
        writer,
        examples,
        {name: reading_of(run.opened, name) for name in streams},
        {name: min(run.config.run.first_batch, each.batch_size) for name, each in streams.items()},
    )


def _saving(
    run: Run,
    checkpointer: Checkpointer,
    timer: Timer,
    made: Progress,
    bad_records: BadRecords,
    evaluators: Sequence[Evaluator],
) -> tuple[Checkpoint, Stop]:
    """Returns the hooks that save, and that agree with the other hosts on when to save and end."""
    config = run.config
    description = {
        "config": redacted(to_dict(config)),
        "must_match": run.must_match,
        "trained_on": list(run.data.trained_on),
        "versions": versions(),
        "devices": devices(),
    }
    # Each of the two asks the other, so the first one asks for the second by a function.
    checkpoint = Checkpoint(
        checkpointer,
        lambda step: {"step": step, BAD_RECORDS: bad_records.described(step), **description},
        timer,
        every=config.run.checkpoint_every,
        minutes=config.run.checkpoint_minutes,
        asked=lambda: stop.agreed_to_save(),
        before=lambda step: bool(due_after(step, evaluators)) or bad_records.too_many(step),
        on_saved=made.saved,
        alone=jax.process_count() == 1,
    )
    # By their own clocks, hosts would save at different steps. So the clock of the primary counts,
    # and all agree on what it says.
    stop = Stop(Agreement(run.mesh), lambda: is_primary() and checkpoint.is_due())
    return checkpoint, stop
