"""Goes back to the last good step of a run that has diverged, and past the records since then.

The number of the step does not go back. A batch is a function of it, so the records between the
good step and the last bad one never come again, after a resume neither; and nothing but the state
has to be saved.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from vlbeit_jax.errors import Diverged
from vlbeit_jax.runtime import history
from vlbeit_jax.runtime.history import History, read_history
from vlbeit_jax.runtime.hooks.base import Hook
from vlbeit_jax.runtime.hooks.checkpoint import Checkpoint
from vlbeit_jax.runtime.hooks.progress import Progress
from vlbeit_jax.runtime.hosts import is_primary
from vlbeit_jax.runtime.resume import restored, set_aside
from vlbeit_jax.runtime.run import Run
from vlbeit_jax.runtime.writer import Writer
from vlbeit_jax.training.checkpoint import Checkpointer
from vlbeit_jax.training.saved_run import ROLLED_BACK
from vlbeit_jax.training.state import TrainState


def roll_back(
    run: Run,
    checkpointer: Checkpointer,
    abstract: TrainState,
    made: Progress,
    writer: Writer,
    error: Diverged,
) -> tuple[TrainState, Callable[[], None]]:
    """Returns the state of the last step before a divergence, with the number of its last step.

    Every process calls it, at the same step. Newer checkpoints are moved aside. The second value is
    to be called once the state is saved: it notes the rollback in the history. If the process is
    killed before, the next start diverges again, and may roll back as often as this one.

    Args:
      run: that has diverged.
      checkpointer: of the run.
      abstract: shapes of the state.
      made: knows the last step.
      writer: of the run.
      error: says from which step to which one.

    Raises:
      Diverged: ``error``, if the run may not roll back again, or has no step to go back to.
    """
    last = error.last or made.step
    first = error.first or last
    checkpointer.look_again()
    events = [each["event"] for each in read_history(run.workdir)]
    # As process 0 sees them.
    used, steps = run.hosts.gathered([events.count(history.ROLLED_BACK), checkpointer.steps()])[0]
    good = [step for step in steps if step < first]
    if used >= run.config.run.rollbacks or not good:
        raise error
    told = [str(error)]
    state = restored(run, checkpointer.step(good[-1]), abstract, told)
    if state is None:
        raise error

    def move() -> None:
        for step in steps:
            if step > good[-1]:
                set_aside(run.workdir, checkpointer.step(step), told, ROLLED_BACK)

    run.hosts.on_primary(move)

    def note() -> None:
        facts = {"step": last, "to": good[-1], "because": str(error)}
        History(run.workdir, enabled=is_primary()).add(history.ROLLED_BACK, facts)

    told.append(
        f"rolled back to the state of step {good[-1]} ({used + 1} of run.rollbacks="
        f"{run.config.run.rollbacks}); the run goes on at step {last}, with other records"
    )
    for line in told:
        writer.say(line)
    place = state.step.sharding
    number = jax.jit(lambda: jnp.int32(last), out_shardings=place)()
    return dataclasses.replace(state, step=number), note


def save_at_once(hooks: Sequence[Hook], state: TrainState) -> None:
    """Saves the state after a rollback, so that no start finds the one before it."""
    for hook in hooks:
        if isinstance(hook, Checkpoint):
            hook.save(int(state.step), state)
            hook.close()  # Returns when it is on disk; the hook may be used further.
