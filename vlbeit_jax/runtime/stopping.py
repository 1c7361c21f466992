"""What signals change: a compilation ends at once, and a run with its own exit code."""

import contextlib
from collections.abc import Iterator, Sequence

from vlbeit_jax.errors import Exit, Interrupted, Preempted
from vlbeit_jax.runtime import signals, watchdog
from vlbeit_jax.runtime.hooks.stop import REASONS
from vlbeit_jax.runtime.writer import Writer

AGAIN = "run the same command again to resume"


@contextlib.contextmanager
def compiling(writer: Writer, streams: Sequence[str]) -> Iterator[None]:
    """Within its body, a signal ends the process at once, which cannot save while it compiles."""
    with signals.at_once(), watchdog.patient("the step is compiled"), writer.compiling(streams):
        yield


def raise_for_signal(ending: str, step: int, writer: Writer) -> None:
    """Raises what ends the command if a signal has ended the run, whose ``step`` is saved.

    Args:
      ending: why the run has ended.
      step: the last one.
      writer: of the log.

    Raises:
      Interrupted: it was Ctrl-C.
      Preempted: it was SIGTERM.
    """
    if ending == REASONS[Exit.INTERRUPTED]:
        writer.say(f"interrupted; step {step} is saved; {AGAIN} from step {step}")
        raise Interrupted
    if ending == REASONS[Exit.PREEMPTED]:
        came = signals.preempted_by()
        raise Preempted(f"{came} came; step {step} is saved; {AGAIN} from step {step}")
