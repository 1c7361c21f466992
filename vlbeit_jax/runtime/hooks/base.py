"""The interface of hooks."""

from collections.abc import Mapping

from vlbeit_jax.training.state import TrainState

FINISHED = "finished"  # Why a run ends that has taken all its steps.


class Hook:
    """What happens around steps; every method does nothing by default.

    Steps are counted from 1 in all methods but ``before_step``: step n is the one after which
    ``state.step`` is n.
    """

    def before_step(self, index: int) -> None:
        """Called before a step; ``index`` is the number of steps taken so far."""

    def on_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Receives the metrics of a step, exactly once, in order.

        It is called one step late, when the next step is already running, because fetching metrics
        waits for the device.
        """

    def needs_metrics(self, step: int) -> bool:
        """Whether ``after_step`` of this step needs its own metrics; the loop then waits."""
        return False

    def should_stop(self, step: int) -> str | None:
        """Returns why the run must end after this step, or None. Hosts must agree in here."""
        return None

    def after_step(self, step: int, state: TrainState, ending: str | None) -> None:
        """Called after a step was started.

        Args:
          step: number of the step.
          state: after the step; the next step donates its arrays.
          ending: why the run ends with this step; None if it goes on.
        """

    def before_failure(self, step: int, state: TrainState) -> None:
        """Called if the data of the next step cannot be read, before the run ends with that error.

        Perhaps this process alone has failed, so nothing in here may wait for the others.

        Args:
          step: the last one, which is good.
          state: after it.
        """

    def close(self) -> None:
        """Called once when the loop ends, for whatever reason."""
