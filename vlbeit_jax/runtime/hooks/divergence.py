"""Stops a run that has diverged."""

import math
from collections.abc import Callable, Mapping

from vlbeit_jax.runtime.hooks.base import Hook


class Divergence(Hook):
    """Fails at the first step with a loss or gradient that is not finite, before it is saved."""

    def __init__(self, newest: Callable[[], int | None]):
        """Args: ``newest`` returns the step of the newest checkpoint, for the message."""
        self._newest = newest

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Checks a step.

        Raises:
          FloatingPointError: a metric is not finite.
        """
        bad = {name: value for name, value in metrics.items() if not math.isfinite(value)}
        if bad:
            newest = self._newest()
            kept = "there is no checkpoint yet"
            if newest is not None:
                kept = f"the newest good checkpoint is that of step {newest}"
            raise FloatingPointError(
                f"step {step}: not finite: {bad}; {kept}; lower optimizer.peak_lr or "
                "optimizer.clip_norm"
            )
