"""Throughput, MFU, waiting times and goodput of a run."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vlbeit_jax.cost.flops import StepFlops

WAITS = ("data", "checkpoint", "evaluation")


class Timer:
    """Splits wall time into steps and everything else.

    The device computes a step while the host already does something else. So the time of the steps
    is what remains of the wall time after waiting and compilation; the parts add up to all of it.
    """

    def __init__(
        self,
        peak: float | None,
        compile_seconds: Callable[[], float] = lambda: 0.0,
        start_seconds: float = 0.0,
    ):
        """Starts the clock.

        Args:
          peak: operations per second of all devices together, the denominator of MFU; None if it is
            not known, and then there is no MFU.
          compile_seconds: total time spent on compilation so far.
          start_seconds: that the start of the run has taken before.
        """
        self._peak, self._compile_seconds = peak, compile_seconds
        self._start_seconds = start_seconds
        self._start = self._last_summary = time.monotonic()
        self._waited: dict[str, float] = defaultdict(float)
        self._all_waits: dict[str, float] = dict.fromkeys(WAITS, 0.0)
        self._compiled = self._not_steps = 0.0
        self._samples = self._tokens = self._flops = 0.0

    @contextmanager
    def waiting(self, kind: str) -> Iterator[None]:
        """Counts the time of its body as waiting for ``kind`` (see ``WAITS``)."""
        assert kind in WAITS, kind
        start = time.monotonic()
        try:
            yield
        finally:
            self._waited[kind] += time.monotonic() - start
            self._all_waits[kind] += time.monotonic() - start

    def steps_begin(self) -> None:
        """Counts the time since the timer was created as part of the start."""
        now = time.monotonic()
        self._start_seconds += now - self._start
        self._start = self._last_summary = now

    def count(self, work: StepFlops) -> None:
        """Counts the work of one step."""
        self._samples += work.samples
        self._tokens += work.tokens
        self._flops += work.model

    def totals(self) -> dict[str, float]:
        """Returns where all the time since the start of the run went, in seconds.

        ``wall`` is the sum of ``steps``, ``start``, ``compile`` and the kinds of waiting.
        """
        wall = time.monotonic() - self._start + self._start_seconds
        parts = {"start": self._start_seconds, "compile": self._compile_seconds()}
        parts |= self._all_waits
        parts = {"wall": wall, "steps": max(wall - sum(parts.values()), 0.0), **parts}
        return {name: round(seconds, 3) for name, seconds in parts.items()}

    def summary(self) -> dict[str, float]:
        """Returns rates and shares of wall time since the last summary, and starts anew.

        ``goodput`` is the share of steps in the wall time since the first step began.
        """
        now = time.monotonic()
        compiled = self._compile_seconds()
        not_steps = sum(self._waited.values()) + compiled - self._compiled
        wall = max(now - self._last_summary, 1e-9)
        steps = max(wall - not_steps, 1e-9)
        self._not_steps += not_steps
        figures = {
            "samples_per_second": self._samples / steps,
            "tokens_per_second": self._tokens / steps,
            "model_flops_per_second": self._flops / steps,
            **({"mfu": self._flops / steps / self._peak} if self._peak else {}),
            "data_wait": self._waited["data"] / wall,
            "checkpoint_wait": self._waited["checkpoint"] / wall,
            "goodput": 1 - self._not_steps / max(now - self._start, 1e-9),
        }
        self._samples = self._tokens = self._flops = 0.0
        self._waited.clear()
        self._compiled, self._last_summary = compiled, now
        return figures
