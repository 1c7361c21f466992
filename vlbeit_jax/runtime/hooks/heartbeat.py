"""Tells the watchdog that steps are finished."""

from collections.abc import Mapping

from vlbeit_jax.runtime import watchdog
from vlbeit_jax.runtime.hooks.base import Hook


class Heartbeat(Hook):
    """A beat for each step that is begun, and for each one that the devices have finished."""

    def before_step(self, index: int) -> None:
        """The start is over once steps are taken."""
        watchdog.steps_begin()

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Metrics arrive when the devices have finished the step."""
        watchdog.beat()
