"""What signals change: a compilation ends at once, and a run with its own exit code."""

import contextlib
from collections.abc import Iterator, Sequence

from vlbeit_jax.errors import Exit, Interrupted, Preempted
from vlbeit_jax.runtime import signals, watchdog
from vlbeit_jax.runtime.hooks.base import FINISHED, Hook
from vlbeit_jax.runtime.hooks.evaluate import VALIDATION, Evaluate
from vlbeit_jax.runtime.hooks.stop import REASONS
from vlbeit_jax.runtime.metrics_file import read_metrics
from vlbeit_jax.runtime.run import Run
from vlbeit_jax.runtime.timer import Timer
from vlbeit_jax.runtime.writer import Writer
from vlbeit_jax.training.mesh import put_replicated
from vlbeit_jax.training.state import TrainState

AGAIN = "run the same command again to resume"


@contextlib.contextmanager
def compiling(writer: Writer, streams: Sequence[str]) -> Iterator[None]:
    """A signal ends the process at once: the main thread cannot save while it compiles."""
    with signals.at_once(), watchdog.patient("the step is compiled"), writer.compiling(streams):
        yield


def raise_for_signal(ending: str, hooks: Sequence[Hook], step: int, writer: Writer) -> None:
    """Raises what ends the command if a signal has ended the run, whose ``step`` is saved.

    Raises:
      Interrupted: it was Ctrl-C.
      Preempted: it was SIGTERM.
    """
    # A signal during the last evaluation has not kept the run from taking all its steps.
    reasons = {ending, *(hook.abandoned for hook in hooks if isinstance(hook, Evaluate))}
    if REASONS[Exit.INTERRUPTED] in reasons:
        writer.say(f"interrupted; step {step} is saved; {AGAIN} from step {step}")
        raise Interrupted
    if REASONS[Exit.PREEMPTED] in reasons:
        raise Preempted(f"SIGTERM came; step {step} is saved; {AGAIN} from step {step}")


def finish_evaluation(run: Run, state: TrainState, writer: Writer, timer: Timer) -> None:
    """Evaluates a finished run whose last evaluation was abandoned because of a signal."""
    step, lines = int(state.step), read_metrics(run.workdir)
    evaluated = [line["step"] for line in lines if line["split"] == VALIDATION][-1:] == [step]
    # Every process decides as the primary does, which has written the file.
    if not run.hosts.gathered(bool(lines) and not evaluated)[0]:
        return
    evaluators = run.opened.evaluators(run.data, run.place)
    if any(each.every for each in evaluators):
        frozen = put_replicated(run.opened.frozen, run.mesh)
        ema = bool(run.config.optimizer.ema_decay)
        Evaluate(evaluators, frozen, writer, timer, ema=ema).after_step(step, state, FINISHED)
