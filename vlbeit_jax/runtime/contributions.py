"""What each data set has contributed to a run: figures for its log lines, and a last message."""

from collections.abc import Mapping

from vlbeit_jax.data.contributions import Contribution, Mixed
from vlbeit_jax.data.pipeline import Examples
from vlbeit_jax.runtime.run import Run
from vlbeit_jax.training.schedule import Schedule

MANY = 10**12  # Rows whose shares are exact for any reading of two decimals.


class Contributions:
    """Counts rows and epochs of each set; nothing is counted while the run goes on.

    Which set gives an example follows from the example's number, on any number of hosts.
    """

    def __init__(
        self,
        examples: Mapping[str, Examples],
        schedule: Schedule,
        batch_sizes: Mapping[str, int],
    ):
        """Takes the examples of each stream, of which some may come from no set.

        Args:
          examples: by stream.
          schedule: of the run.
          batch_sizes: rows of a step, over all hosts, by stream.
        """
        self._mixed = {name: each for name, each in examples.items() if isinstance(each, Mixed)}
        self._schedule, self._batch_sizes = schedule, batch_sizes

    @classmethod
    def of(cls, run: Run, examples: Mapping[str, Examples]) -> "Contributions":
        """Takes the examples of a run, by stream."""
        sizes = {name: stream.batch_size for name, stream in run.task.streams().items()}
        return cls(examples, run.schedule, sizes)

    def figures(self, step: int) -> dict[str, float]:
        """Returns ``data/STREAM/SET/rows`` and ``.../epochs`` after a number of steps."""
        return {
            f"data/{stream}/{each.name}/{kind}": value
            for stream, sets in self._after(step).items()
            for each in sets
            for kind, value in (("rows", each.rows), ("epochs", each.epochs))
        }

    def text(self, step: int) -> str:
        """Returns the same in words; empty if no example comes from a set."""
        lines = [
            f"{stream}: {', '.join(_told(each, sum(one.rows for one in sets)) for each in sets)}"
            for stream, sets in self._after(step).items()
        ]
        return "\n  ".join([f"rows of each data set up to step {step}", *lines]) if lines else ""

    def shares(self) -> str:
        """Returns the share of each set in the rows of streams with several; empty without one."""
        lines = []
        for stream, each in self._mixed.items():
            if len(sets := each.contributions(MANY)) > 1:
                told = ", ".join(f"{one.name} {one.rows / MANY:.2%}" for one in sets)
                lines.append(f"mixture of {stream}: {told}")
        return "\n".join(lines)

    def _after(self, step: int) -> dict[str, list[Contribution]]:
        return {
            stream: each.contributions(
                self._schedule.used_before(stream, step) * self._batch_sizes[stream]
            )
            for stream, each in self._mixed.items()
        }


def _told(each: Contribution, all_rows: int) -> str:
    share = f"{each.rows / all_rows:.1%}, " if all_rows else ""
    return f"{each.name} {each.rows:,} ({share}{each.epochs:.2f} epochs)"
