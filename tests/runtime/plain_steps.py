"""Steps in plain Python, for tests of the loop: a state is a number, and nothing is compiled."""

import dataclasses
from typing import Any

import numpy as np

from vlbeit_jax.runtime.hooks.base import Hook
from vlbeit_jax.runtime.hooks.checkpoint import Checkpoint
from vlbeit_jax.runtime.loop import train_loop
from vlbeit_jax.runtime.timer import Timer
from vlbeit_jax.training.schedule import Schedule


@dataclasses.dataclass
class State:
    step: int

    def saved(self):
        return {"params": self.step}


class Feed:
    """Batches 0, 1, 2, ... of a stream."""

    def __init__(self):
        self.given, self.closed = 0, False

    def __next__(self):
        self.given += 1
        return {"x": self.given - 1}

    def close(self):
        self.closed = True


class Recorder(Hook):
    """Notes what happens, in order."""

    def __init__(self, needs=None, stop=None):
        self.events, self._needs, self._stop = [], needs, stop

    def before_step(self, index):
        self.events.append(f"before {index}")

    def on_metrics(self, step, metrics):
        self.events.append(f"metrics {step}: {metrics['loss']:g}")

    def needs_metrics(self, step):
        return step == self._needs

    def should_stop(self, step):
        return "because" if step == self._stop else None

    def after_step(self, step, state, ending):
        assert state.step == step
        self.events.append(f"after {step}" + (f", {ending}" if ending else ""))

    def close(self):
        self.events.append("close")


def loop(hooks: Any, start=0, steps=3, losses=None, schedule="image", feeds=None, timer=None):
    """Trains on losses 0.5, 1.5, ... or on those that are given, by step."""

    def step(state: Any, frozen, batches) -> Any:
        value = (losses or {}).get(state.step + 1, state.step + 0.5)
        return State(state.step + 1), {"loss": np.float32(value)}

    state: Any = State(start)
    return train_loop(
        step,
        state,
        None,
        {"image": Feed(), "text": Feed()} if feeds is None else feeds,
        Schedule.parse(schedule),
        hooks,
        timer or Timer(1.0),
        steps=steps,
        put=lambda rows: rows,
    )


class Saves:
    """Notes the steps that are saved, in place of a checkpointer."""

    def __init__(self):
        self.steps, self.waited = [], False

    def save(self, step, trees, description):
        assert trees == {"params": step} and description == {"step": step}
        self.steps.append(step)

    def latest(self):
        return self.steps[-1] if self.steps else None

    def check(self):
        return True

    def wait(self):
        self.waited = True
        return True


def checkpoint(saves, every):
    return Checkpoint(saves, lambda step: {"step": step}, Timer(1.0), every)


class Lines:
    """Notes the lines of figures, in place of a writer."""

    def __init__(self):
        self.lines, self.said, self.named = [], [], []

    def say(self, text):
        self.said.append(text)

    def refused(self, step, what, records):
        self.named.append((step, what, records(step)))

    def write(self, step, split, figures):
        self.lines.append((step, split, dict(figures)))

    def progress(self, text):
        pass
