"""Stops a run that has diverged."""

import math
from collections.abc import Callable, Mapping

from vlbeit_jax.runtime.hooks.base import Hook


class Divergence(Hook):
    """Fails at the first step whose update was refused, or whose metrics are not finite.

    The train step has left the parameters as they were before such a step, so every checkpoint is
    good: even one that was saved before the metrics arrived.
    """

    def __init__(self, newest: Callable[[], int | None]):
        """Args: ``newest`` returns the step of the newest checkpoint, for the message."""
        self._newest = newest

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Checks a step.

        Raises:
          FloatingPointError: something is not finite; the message names it.
        """
        bad = {name: value for name, value in metrics.items() if not math.isfinite(value)}
        if bad or metrics.get("skipped"):
            newest = self._newest()
            kept = "there is no checkpoint yet"
            if newest is not None:
                kept = f"the newest good checkpoint is that of step {newest}"
            raise FloatingPointError(
                f"step {step}: not finite: {bad or 'the model state'}; {kept}; lower "
                "optimizer.peak_lr or optimizer.clip_norm"
            )
