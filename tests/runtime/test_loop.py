"""The loop calls hooks in order, reports metrics one step late, and closes everything it was given.

Steps are plain Python here: a state is a number of steps, and nothing is compiled.
"""

import contextlib
import dataclasses
import signal

import numpy as np
import pytest

from vlbeit_jax.cost.flops import StepFlops
from vlbeit_jax.runtime.hooks.base import FINISHED, Hook
from vlbeit_jax.runtime.hooks.checkpoint import Checkpoint
from vlbeit_jax.runtime.hooks.divergence import Divergence
from vlbeit_jax.runtime.hooks.evaluate import Evaluate, Evaluator
from vlbeit_jax.runtime.hooks.interrupt import Interrupt
from vlbeit_jax.runtime.hooks.log import Log
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


def loop(hooks, start=0, steps=3, losses=None, schedule="image", feeds=None, timer=None):
    """Trains on losses 0.5, 1.5, ... or on those that are given, by step."""

    def step(state, frozen, batches):
        value = (losses or {}).get(state.step + 1, state.step + 0.5)
        return State(state.step + 1), {"loss": np.float32(value)}

    return train_loop(
        step,
        State(start),
        None,
        {"image": Feed(), "text": Feed()} if feeds is None else feeds,
        Schedule.parse(schedule),
        hooks,
        timer or Timer(1.0),
        steps=steps,
        put=lambda rows: rows,
    )


def test_metrics_come_one_step_late_and_once():
    recorder = Recorder()
    state, ending = loop([recorder])
    assert (state.step, ending) == (3, FINISHED)
    assert recorder.events == [
        "before 0",
        "after 1",
        "before 1",
        "metrics 1: 0.5",
        "after 2",
        "before 2",
        "metrics 2: 1.5",
        "metrics 3: 2.5",  # The last step's own.
        "after 3, finished",
        "close",
    ]


def test_a_hook_that_needs_a_steps_own_metrics_gets_them():
    recorder = Recorder(needs=1)
    loop([recorder], steps=2)
    assert recorder.events[1:4] == ["metrics 1: 0.5", "after 1", "before 1"]
    assert recorder.events.count("metrics 1: 0.5") == 1


def test_a_hook_ends_the_run_and_every_hook_hears_why():
    first, second = Recorder(), Recorder(stop=2)
    state, ending = loop([first, second], steps=5)
    assert (state.step, ending) == (2, "because")
    for recorder in (first, second):
        assert recorder.events[-3:] == ["metrics 2: 1.5", "after 2, because", "close"]


def test_a_run_without_steps_left_only_closes():
    recorder = Recorder()
    state, ending = loop([recorder], start=3)
    assert (state.step, ending, recorder.events) == (3, FINISHED, ["close"])


def test_streams_follow_the_schedule_from_any_step():
    feeds = {"image": Feed(), "text": Feed()}
    loop([], start=1, steps=6, schedule="image,text,image+text", feeds=feeds)
    assert (feeds["image"].given, feeds["text"].given) == (3, 4)
    assert all(feed.closed for feed in feeds.values())


@pytest.mark.parametrize("method", ["before_step", "on_metrics", "should_stop", "after_step"])
def test_everything_is_closed_after_an_error(method):
    class Broken(Hook):
        pass

    def fail(*_):
        raise RuntimeError("broken")

    setattr(Broken, method, fail)
    feeds, recorder = {"image": Feed()}, Recorder()
    with pytest.raises(RuntimeError, match="broken"):
        loop([Broken(), recorder], feeds=feeds)
    assert recorder.events[-1] == "close" and feeds["image"].closed


class Saves:
    """Notes the steps that are saved, in place of a checkpointer."""

    def __init__(self):
        self.steps, self.waited = [], False

    def save(self, step, trees, description):
        assert trees == {"params": step} and description == {"step": step}
        self.steps.append(step)

    def latest(self):
        return self.steps[-1] if self.steps else None

    def wait(self):
        self.waited = True


def checkpoint(saves, every):
    return Checkpoint(saves, lambda step: {"step": step}, Timer(1.0), every)


@pytest.mark.parametrize(
    ("stop", "saved"), [(None, [2, 4, 5]), (3, [2, 3]), (4, [2, 4])], ids=["end", "stop", "both"]
)
def test_checkpoints_are_saved_on_their_period_and_on_every_ending(stop, saved):
    saves = Saves()
    loop([Recorder(stop=stop), checkpoint(saves, 2)], steps=5)
    assert saves.steps == saved and saves.waited


@pytest.mark.parametrize(("bad", "kept"), [(1, None), (2, 1), (3, 2)])
def test_a_step_that_is_not_finite_is_not_saved(bad, kept):
    saves = Saves()
    said = f"that of step {kept}" if kept else "no checkpoint yet"
    with pytest.raises(FloatingPointError, match=f"step {bad}: not finite: .*{said}"):
        loop([Divergence(saves.latest), checkpoint(saves, 1)], losses={bad: np.nan})
    assert saves.latest() == kept


class Lines:
    """Notes the lines of figures, in place of a writer."""

    def __init__(self):
        self.lines = []

    def write(self, step, split, figures):
        self.lines.append((step, split, dict(figures)))

    def progress(self, text):
        pass


def test_evaluators_run_on_their_periods_and_at_the_end_of_a_finished_run_only():
    def run(state, frozen):
        assert frozen == "frozen"
        return {"score": float(state.step)}

    evaluators = [Evaluator("a", 2, run), Evaluator("", 3, run), Evaluator("never", 0, run)]
    for stop, expected in ((None, [(2, "a/"), (3, ""), (4, "a/"), (5, "a/"), (5, "")]), (1, [])):
        lines = Lines()
        loop([Recorder(stop=stop), Evaluate(evaluators, "frozen", lines, Timer(1.0))], steps=5)
        assert lines.lines == [
            (step, "validation", {f"{prefix}score": float(step)}) for step, prefix in expected
        ]


def log(lines, timer, every=2):
    work = StepFlops(model=1.0, frozen=0.0, tokens=1.0, samples=1.0)
    return Log(
        lines,
        timer,
        every=every,
        learning_rate=lambda step: 10.0 * step,
        work=lambda step: work,
        chance={},
    )


def test_a_line_has_the_means_since_the_last_one_and_includes_its_own_step():
    lines, timer = Lines(), Timer(1.0)
    loop([log(lines, timer)], steps=5, timer=timer)
    assert [(step, line["loss"], line["learning_rate"]) for step, _, line in lines.lines] == [
        (2, 1.0, 5.0),
        (4, 3.0, 25.0),
        (5, 4.5, 40.0),
    ]
    assert all(line["samples_per_second"] > 0 for *_, line in lines.lines)


def test_the_log_shows_the_step_at_which_a_run_fails():
    lines, timer = Lines(), Timer(1.0)
    with pytest.raises(FloatingPointError):
        loop([log(lines, timer, every=100), Divergence(lambda: None)], losses={2: np.inf})
    ((step, _, line),) = lines.lines
    assert step == 2 and np.isinf(line["loss"])


class CtrlC(Hook):
    """Presses Ctrl-C during one step, as often as it is told to."""

    def __init__(self, times):
        self.times, self.ended = times, 0

    def after_step(self, step, state, ending):
        if step == 2:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)
            self.ended = step


@pytest.mark.parametrize(("times", "ended"), [(1, 2), (2, 0)])
def test_the_first_ctrl_c_waits_for_the_step_and_the_second_does_not(times, ended):
    before, keys, recorder = signal.getsignal(signal.SIGINT), CtrlC(times), Recorder()
    with pytest.raises(KeyboardInterrupt), contextlib.closing(Interrupt()) as interrupt:
        loop([keys, recorder, interrupt], steps=9)
    assert keys.ended == ended
    assert "metrics 2: 1.5" not in recorder.events  # Nothing more was trained.
    assert signal.getsignal(signal.SIGINT) is before
