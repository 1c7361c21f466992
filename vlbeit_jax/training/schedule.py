"""Which streams a step trains on: a pure function of the step, so nothing has to be saved."""

import dataclasses
from collections.abc import Iterable, Sequence


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A cycle of steps, each with its streams.

    Attributes:
      cycle: names of streams, alternating (``image,text,pair``) or joint (``image+text+pair``).
    """

    cycle: tuple[tuple[str, ...], ...]

    @classmethod
    def parse(cls, text: str) -> "Schedule":
        """Returns the schedule of a text: "," separates steps, "+" the streams of a step."""
        steps = text.replace(" ", "").split(",")
        return cls(tuple(tuple(sorted(step.split("+"))) for step in steps))

    @property
    def streams(self) -> list[str]:
        """Every stream of the cycle, sorted."""
        return sorted({stream for step in self.cycle for stream in step})

    def streams_at(self, step: int) -> tuple[str, ...]:
        """Returns the streams of a step."""
        return self.cycle[step % len(self.cycle)]

    def used_before(self, stream: str, step: int) -> int:
        """Returns the batches that a stream has given before a step: where its data resume."""
        per_cycle = [stream in streams for streams in self.cycle]
        whole, rest = divmod(step, len(self.cycle))
        return whole * sum(per_cycle) + sum(per_cycle[:rest])


def schedule_problems(text: str, streams: Sequence[str]) -> Iterable[str]:
    """Returns what is wrong with the schedule of a task that has these streams."""
    path = f"schedule={text!r}"
    cycle = Schedule.parse(text).cycle
    if any(name not in streams for step in cycle for name in step):
        names = ", ".join(streams)
        yield f"{path}: steps separated by ',', streams of a step by '+', out of {names}"
    elif any(len(set(step)) < len(step) for step in cycle):
        yield f"{path}: a stream stands twice in one step"
