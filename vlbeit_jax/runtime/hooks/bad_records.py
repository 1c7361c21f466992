"""Counts examples whose record could not be used, over all processes, and ends a run with many."""

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from vlbeit_jax.data.bad_records import Replaced
from vlbeit_jax.errors import BadData
from vlbeit_jax.runtime.bad_data import TooManyBadRecords
from vlbeit_jax.runtime.hooks.base import Hook
from vlbeit_jax.training.state import TrainState

RECENT = 1000  # Steps of which a share of the rows may be replaced.
NAMED = 5  # Records that messages name; the others are counted.


class _Noted(NamedTuple):
    """An example that was replaced, as processes tell each other."""

    stream: str
    step: int
    example: int
    reason: str
    message: str


class BadRecords(Hook):
    """Knows how many examples of the run were made of another record, by stream and reason.

    A process knows those of its own rows. They are exchanged where the counts are needed: for a
    line of figures, for a checkpoint and at the end. Hosts that read the same rows count them once.
    """

    def __init__(
        self,
        gathered: Callable[[Any], Sequence[Any]],
        any_of: Callable[[bool], bool],
        say: Callable[[str], None],
        rows: Callable[[int], int],
        share: float,
        saved: Mapping[str, Any],
    ):
        """Takes how processes talk, and how many examples may be replaced.

        Args:
          gathered: returns what every process passes to this call.
          any_of: returns whether any process passes True to this call.
          say: writes a message to the log.
          rows: of all streams and processes in the first so many steps.
          share: of the rows of the last ``RECENT`` steps, above which the run ends; 0: the first
            replaced example ends it.
          saved: of ``described``, in the checkpoint from which the run resumes.
        """
        self._gathered, self._any_of, self._say = gathered, any_of, say
        self._rows, self._share = rows, share
        self._counts = {
            stream: collections.Counter(counts)
            for stream, counts in saved.get("counts", {}).items()
        }
        self._recent = collections.deque((step, count) for step, count in saved.get("recent", ()))
        self._new: list[_Noted] = []
        self._step = self._named = 0

    def before_step(self, index: int) -> None:
        """Notes the step whose batches are read next."""
        self._step = index + 1

    def add(self, stream: str, replaced: Sequence[Replaced]) -> None:
        """Notes examples of this process in the next step.

        Raises:
          BadData: no example may be replaced.
        """
        if not self._share:
            raise BadData(f"stream {stream}, step {self._step}: {replaced[0].message}")
        self._new += [_Noted(stream, self._step, *each) for each in replaced]

    def figures(self, step: int) -> dict[str, float]:
        """Returns ``data/STREAM/replaced/REASON`` after a step. All processes call it together."""
        self._exchange(step)
        return {
            f"data/{stream}/replaced/{reason}": count
            for stream, counts in sorted(self._counts.items())
            for reason, count in sorted(counts.items())
        }

    def described(self, step: int) -> dict[str, Any]:
        """Returns what a checkpoint keeps, in JSON. All processes call it together."""
        self._exchange(step)
        counts = {stream: dict(sorted(each.items())) for stream, each in self._counts.items()}
        return {"counts": counts, "recent": [list(each) for each in self._recent]}

    def too_many(self, step: int) -> bool:
        """Whether too many examples were replaced, by the newest counts of all processes."""
        return self._replaced() > self._share * self._recent_rows(step)

    def _replaced(self) -> int:
        return sum(count for _, count in self._recent)

    def _recent_rows(self, step: int) -> int:
        last = max(step, RECENT)
        return self._rows(last) - self._rows(last - RECENT)

    def after_step(self, step: int, state: TrainState, ending: str | None) -> None:
        """Ends the run if too many examples were replaced, after the step was saved.

        Raises:
          TooManyBadRecords: on all processes at the same step.
        """
        if self.too_many(step):
            replaced, rows = self._replaced(), self._recent_rows(step)
            raise TooManyBadRecords(
                f"step {step}: the records of {replaced:,} rows of the last {RECENT:,} steps "
                f"cannot be used, more than run.bad_records={self._share:g} of {rows:,} rows; "
                f"since step 0: {_told(self._counts)}; log.txt names the first ones. Prepare the "
                "set again, or raise run.bad_records"
            )

    def _exchange(self, step: int) -> None:
        """Adds what all processes have noted since the last exchange."""
        while self._recent and self._recent[0][0] <= step - RECENT:
            self._recent.popleft()
        if not self._any_of(bool(self._new)):
            return
        own = [each._replace(message="") for each in self._new]
        own[:NAMED] = self._new[:NAMED]  # Messages are long.
        self._new = []
        noted: dict[tuple[str, int], _Noted] = {}
        for told in self._gathered(own):
            for each in sorted(_Noted(*one) for one in told):
                known = noted.setdefault((each.stream, each.example), each)
                if each.message and not known.message:
                    noted[each.stream, each.example] = each
        for each in noted.values():
            self._counts.setdefault(each.stream, collections.Counter())[each.reason] += 1
        steps = collections.Counter(each.step for each in noted.values())
        self._recent.extend(sorted(steps.items()))
        self._tell(step, sorted(noted.values(), key=lambda each: (each.step, each.example)))

    def _tell(self, step: int, noted: Sequence[_Noted]) -> None:
        shown = [each for each in noted if each.message][: NAMED - self._named]
        self._named += len(shown)
        lines = [
            f"step {step}: the records of {len(noted):,} examples cannot be used, and neighbours "
            f"took their place; since step 0: {_told(self._counts)}"
        ]
        lines += [f"{each.stream}, {each.reason}: {each.message}" for each in shown]
        self._say("\n  ".join(lines))


def _told(counts: Mapping[str, Mapping[str, int]]) -> str:
    return "; ".join(
        f"{stream} {', '.join(f'{reason} {count:,}' for reason, count in sorted(each.items()))}"
        for stream, each in sorted(counts.items())
    )
