"""Takes the steps of a start: the loop, and the way back if the run diverges."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vlbeit_jax.data import pipeline
from vlbeit_jax.data.bad_records import Replaced
from vlbeit_jax.data.pipeline import Examples
from vlbeit_jax.errors import Diverged
from vlbeit_jax.runtime import signals
from vlbeit_jax.runtime.contributions import Contributions
from vlbeit_jax.runtime.history import History
from vlbeit_jax.runtime.hooks.base import Hook
from vlbeit_jax.runtime.hooks.evaluate import Abandoned
from vlbeit_jax.runtime.hooks.progress import recorded
from vlbeit_jax.runtime.hooks_of_run import bad_records_of, hooks_of
from vlbeit_jax.runtime.hosts import is_primary
from vlbeit_jax.runtime.loop import train_loop
from vlbeit_jax.runtime.missing_evaluation import evaluate_if_missing
from vlbeit_jax.runtime.rollback import roll_back, save_at_once
from vlbeit_jax.runtime.run import Run
from vlbeit_jax.runtime.stopping import raise_for_signal
from vlbeit_jax.runtime.timer import Timer
from vlbeit_jax.runtime.writer import Writer
from vlbeit_jax.shapes import Tree
from vlbeit_jax.storage import explains_storage
from vlbeit_jax.training.checkpoint import Checkpointer
from vlbeit_jax.training.mesh import put_batch, put_replicated
from vlbeit_jax.training.state import TrainState
from vlbeit_jax.training.step import TrainStep


@dataclasses.dataclass(frozen=True)
class Steps:
    """What all steps of a start share.

    Attributes:
      run: that is trained.
      step: of its task.
      abstract: shapes of the state.
      checkpointer: of the run.
      writer: of its log.
      timer: of its time.
      profile: first step of a trace, and the step before which it ends; None: no trace.
    """

    run: Run
    step: TrainStep
    abstract: TrainState
    checkpointer: Checkpointer
    writer: Writer
    timer: Timer
    profile: tuple[int, int] | None

    def take(self, state: TrainState, start: int) -> TrainState:
        """Takes the steps that are left. If the run diverges, it goes back to a good state.

        Args:
          state: to start from.
          start: steps taken so far; 0 for a new run.

        Raises:
          Diverged: too many steps were not finite, and the run may not go back.
          Interrupted: Ctrl-C has come, and the step is saved.
          Preempted: SIGTERM has come, and the step is saved.
        """
        run = self.run
        frozen = put_replicated(run.opened.frozen, run.mesh)
        examples = {name: run.data.examples(name) for name in run.task.streams()}
        history = History(run.workdir, enabled=is_primary())
        with (
            recorded(history, run, start, self.timer) as made,
            self.writer.noting_errors(),
            explains_storage(run.workdir),  # So that both tell what the command tells.
        ):
            saved = self.checkpointer.describe(start) if start else {}
            bad_records = bad_records_of(run, saved, self.writer)

            def new_hooks() -> list[Hook]:
                return hooks_of(
                    run,
                    examples,
                    frozen,
                    self.checkpointer,
                    self.writer,
                    self.timer,
                    self.profile,
                    made,
                    bad_records,
                )

            hooks = new_hooks()
            self.timer.steps_begin()
            if start:
                evaluate_if_missing(run, state, self.writer, self.timer)
            # A signal does not cut a rollback off, and one that came before is not forgotten.
            with signals.noted():
                while True:
                    try:
                        return self._loop(state, frozen, examples, hooks, bad_records.add)
                    except Diverged as error:
                        state, note = roll_back(
                            run, self.checkpointer, self.abstract, made, self.writer, error
                        )
                        # The hooks so far count refused steps that are behind the run now.
                        hooks = new_hooks()
                        save_at_once(hooks, state)
                        note()

    def _loop(
        self,
        state: TrainState,
        frozen: Tree,
        examples: Mapping[str, Examples],
        hooks: Sequence[Hook],
        note_replaced: Callable[[str, Sequence[Replaced]], None],
    ) -> TrainState:
        """Opens the data at the right place and runs the loop.

        Raises:
          Diverged: too many steps were not finite.
          Interrupted: Ctrl-C has come, and the step is saved.
          Preempted: SIGTERM has come, and the step is saved.
        """
        run, writer = self.run, self.writer
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

        def put(rows: Mapping[str, Any]) -> dict[str, Any]:
            return {name: put_batch(batch, run.mesh) for name, batch in rows.items()}

        try:
            state, ending = train_loop(
                self.step,
                state,
                frozen,
                feeds,
                schedule,
                hooks,
                self.timer,
                steps=steps,
                put=put,
            )
        except Abandoned as error:  # A signal has ended an evaluation.
            raise_for_signal(error.reason, error.step, writer)
            raise
        if told := contributions.text(int(state.step)):
            writer.say(told)
        raise_for_signal(ending, int(state.step), writer)
        return state
