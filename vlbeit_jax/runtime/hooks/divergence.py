"""Stops a run that has diverged."""

import collections
import math
from collections.abc import Callable, Mapping, Sequence

from vlbeit_jax.errors import Diverged
from vlbeit_jax.runtime.hooks.base import Hook
from vlbeit_jax.runtime.writer import Writer

RECENT = 1000  # Steps of which a share may be refused.
NAMED = 3  # Records of a stream that a message names.
REFUSED = "refused"  # Name of the lines of figures of refused steps.


class Divergence(Hook):
    """Reports each step whose update was refused, and ends the run if there are too many.

    The train step has left the parameters as they were before such a step, so every checkpoint is
    good: even one that was saved before the metrics arrived. All processes get the same metrics,
    and so end at the same step.
    """

    def __init__(
        self,
        newest: Callable[[], int | None],
        writer: Writer,
        records: Callable[[int], Mapping[str, Sequence[str]]],
        in_a_row: int,
        share: float,
    ):
        """Takes what a report says, and how many steps may be refused.

        Args:
          newest: returns the step of the newest checkpoint.
          writer: of the run.
          records: from a step to the ids of its records, by stream.
          in_a_row: refused steps that end the run.
          share: of the last ``RECENT`` steps, above which refused ones end the run.
        """
        self._newest, self._writer, self._records = newest, writer, records
        self._in_a_row, self._share = in_a_row, share
        self._recent: collections.deque[int] = collections.deque()  # Refused steps.
        self._row = 0

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Checks a step.

        Raises:
          Diverged: too many steps were refused.
        """
        what = not_finite(metrics)
        while self._recent and self._recent[0] <= step - RECENT:
            self._recent.popleft()
        self._row = self._row + 1 if what else 0
        if not what:
            return
        self._recent.append(step)
        self._writer.write(step, REFUSED, metrics)
        self._writer.refused(step, what, self._records)
        counted, first = f"{self._row} updates in a row were refused", step - self._row + 1
        if self._row < self._in_a_row:
            counted, first = f"{len(self._recent)} of the last {RECENT} updates were refused", 0
            if len(self._recent) <= self._share * RECENT:
                return
            first = self._recent[0]
        newest = self._newest()
        kept = "there is no checkpoint yet"
        if newest:
            kept = f"the newest checkpoint is that of step {newest}, and it is good"
        raise Diverged(
            f"step {step}: {counted}, because something was not finite (here: {what}); {kept}; "
            "lower optimizer.peak_lr or optimizer.clip_norm, or look at the records in "
            "refused.jsonl",
            first,
            step,
        )


def not_finite(metrics: Mapping[str, float]) -> str:
    """Returns what of a step was not finite; empty if its update was applied."""
    bad = [f"{name} {value}" for name, value in metrics.items() if not math.isfinite(value)]
    if bad:
        return ", ".join(bad)
    return "the new parameters or the model state" if metrics.get("refused") else ""
