"""The training loop. What happens around the steps is in hooks."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax

from vlbeit_jax.runtime.bad_data import explains_records
from vlbeit_jax.runtime.hooks.base import FINISHED, Hook
from vlbeit_jax.runtime.timer import Timer
from vlbeit_jax.shapes import Tree
from vlbeit_jax.training.schedule import Schedule
from vlbeit_jax.training.state import TrainState

Rows = dict[str, Any]
Step = Callable[[TrainState, Tree, Any], tuple[TrainState, Mapping[str, Any]]]


class Feed(Protocol):
    """An endless iterator over this host's rows of a stream's batches."""

    def __next__(self) -> Rows:
        """Returns the rows of the next batch."""
        ...

    def close(self) -> None:
        """Ends threads and processes that read ahead."""
        ...


def train_loop(
    step_fn: Step,
    state: TrainState,
    frozen: Tree,
    feeds: Mapping[Any, Feed],
    schedule: Schedule,
    hooks: Sequence[Hook],
    timer: Timer,
    *,
    steps: int,
    put: Callable[[dict[str, Rows]], Any],
) -> tuple[TrainState, str]:
    """Trains from ``state.step`` until ``steps``, or until a hook stops the run.

    Args:
      step_fn: from state, frozen parameters and batches to the next state and metrics.
      state: to start from; its arrays are donated.
      frozen: parameters that are used but not trained, on the devices.
      feeds: by stream; the next batch of each must be the one of step ``state.step``. The loop
        closes them.
      schedule: which streams each step uses.
      hooks: called in this order. The loop closes them in reverse order.
      timer: told how long the loop waits for data.
      steps: number of the last step.
      put: moves batches to the devices.

    Returns:
      The last state, and why the run ended: FINISHED or the reason that a hook gave.
    """
    pending: list[tuple[int, Mapping[str, Any]]] = []

    def report() -> None:
        # Fetching waits until the device has finished the step.
        while pending:
            step, metrics = pending.pop()
            figures = {name: float(value) for name, value in jax.device_get(metrics).items()}
            for hook in hooks:
                hook.on_metrics(step, figures)

    with contextlib.ExitStack() as stack:
        for closing in (*feeds.values(), *hooks):
            stack.callback(closing.close)
        for index in range(int(state.step), steps):
            for hook in hooks:
                hook.before_step(index)
            with _failing(hooks, index, state), timer.waiting("data"):
                rows = {
                    name: _next(feeds[name], name, index) for name in schedule.streams_at(index)
                }
            state, metrics = step_fn(state, frozen, put(rows))
            report()  # Metrics of the previous step: the device is busy with this one meanwhile.
            done = index + 1
            pending.append((done, metrics))
            ending = _first(hook.should_stop(done) for hook in hooks)
            if ending is None and done == steps:
                ending = FINISHED
            if ending or any(hook.needs_metrics(done) for hook in hooks):
                report()
            for hook in hooks:
                hook.after_step(done, state, ending)
            if ending:
                return state, ending
    return state, FINISHED


@contextlib.contextmanager
def _failing(hooks: Sequence[Hook], step: int, state: TrainState) -> Iterator[None]:
    """Tells the hooks before an error leaves its body; ``state`` is good."""
    try:
        yield
    except Exception:
        for hook in hooks:
            hook.before_failure(step, state)
        raise


def _next(feed: Feed, name: str, index: int) -> Rows:
    """Returns the next batch of a stream.

    Raises:
      BadData: its records cannot be read.
    """
    with explains_records(name, index + 1):
        return next(feed)


def _first(reasons: Iterator[str | None]) -> str | None:
    """Returns the first reason, after asking every hook, since all hosts agree in each."""
    given = [reason for reason in reasons if reason]
    return given[0] if given else None
