"""Which streams a step trains on: a pure function of the step, so that there is nothing to save or to agree on."""

import dataclasses

from vlbeit_jax.config_parse import schedule_cycle
from vlbeit_jax.types import Stream


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A cycle of steps, each with its streams: alternating (``image,text,pair``) or joint (``image+text+pair``)."""

    cycle: tuple[tuple[Stream, ...], ...]

    @classmethod
    def parse(cls, text: str) -> "Schedule":
        """From ``run.schedule``."""
        return cls(schedule_cycle(text))

    @property
    def streams(self) -> list[Stream]:
        """Every stream of the cycle."""
        return sorted({stream for step in self.cycle for stream in step})

    def streams_at(self, step: int) -> tuple[Stream, ...]:
        """The streams of a step."""
        return self.cycle[step % len(self.cycle)]

    def used_before(self, stream: Stream, step: int) -> int:
        """Batches that a stream has given before a step: where its data go on after a restart."""
        per_cycle = [stream in streams for streams in self.cycle]
        whole, rest = divmod(step, len(self.cycle))
        return whole * sum(per_cycle) + sum(per_cycle[:rest])
