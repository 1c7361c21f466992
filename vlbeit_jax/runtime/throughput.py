"""Where the time goes and what it buys: rates, MFU, waiting, goodput."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import jax
import jax.numpy as jnp

from vlbeit_jax.cost.flops import StepFlops
from vlbeit_jax.cost.peaks import device_peak

PROBE = 1024  # Side of the matrices whose product measures an unknown device.
AWAY = ("data", "checkpoint", "evaluation", "compilation")  # What the loop does besides steps.


class Throughput:
    """Splits the wall time since the start into steps and the rest, and divides what was done by the time of the steps.

    A step runs while the loop does something else, so that its time is what is left of the wall time: all parts add up to it.
    """

    def __init__(self, peak: float):
        """``peak``: operations a second of all devices together."""
        self._peak = peak
        self._began = self._since = time.monotonic()
        self._away: dict[str, float] = defaultdict(float)
        self._all_away = 0.0
        self._samples = self._tokens = self._flops = 0.0

    @contextmanager
    def away(self, what: str) -> Iterator[None]:
        """Around what is not a step."""
        assert what in AWAY, what
        began = time.monotonic()
        try:
            yield
        finally:
            self.spent(what, time.monotonic() - began)

    def spent(self, what: str, seconds: float) -> None:
        """The same for time that was measured elsewhere."""
        self._away[what] += seconds
        self._all_away += seconds

    def did(self, done: StepFlops) -> None:
        """One more step."""
        self._samples += done.samples
        self._tokens += done.tokens
        self._flops += done.model

    def line(self) -> dict[str, float]:
        """Rates and shares since the last line; goodput since the start of the process's training."""
        now = time.monotonic()
        wall = max(now - self._since, 1e-9)
        steps = max(wall - sum(self._away.values()), 1e-9)
        rate = self._flops / steps
        found = {
            "samples_per_second": self._samples / steps,
            "tokens_per_second": self._tokens / steps,
            "model_flops_per_second": rate,
            "mfu": rate / self._peak,
            "data_wait": self._away["data"] / wall,
            "checkpoint_wait": self._away["checkpoint"] / wall,
            "goodput": 1 - self._all_away / max(now - self._began, 1e-9),
        }
        self._samples = self._tokens = self._flops = 0.0
        self._away.clear()
        self._since = now
        return found


def peak_of_all_devices() -> float:
    """Operations a second: from the table for known accelerators, otherwise measured with a matrix product."""
    kind = jax.devices()[0].device_kind
    known = device_peak(kind)
    return jax.device_count() * known if known else measured_peak() * jax.process_count()


def measured_peak() -> float:
    """Operations a second of this process's devices in float32 products, the best of five.

    Simulated devices of a CPU share its cores, so that one product stands for all of them.
    """
    x = jnp.ones((PROBE, PROBE), jnp.float32)
    multiply = jax.jit(jnp.dot)
    multiply(x, x).block_until_ready()
    best = float("inf")
    for _ in range(5):
        began = time.monotonic()
        multiply(x, x).block_until_ready()
        best = min(best, time.monotonic() - began)
    return 2 * PROBE**3 / best
