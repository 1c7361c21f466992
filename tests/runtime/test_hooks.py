"""Each hook does what it is for, with steps in plain Python."""

import contextlib
import dataclasses
import signal
from typing import Any

import numpy as np
import pytest
from vlbeit_jax.runtime.hooks.interrupt import Interrupt

from tests.runtime.plain_steps import Recorder, loop
from vlbeit_jax.cost.flops import StepFlops
from vlbeit_jax.runtime.hooks.base import Hook
from vlbeit_jax.runtime.hooks.checkpoint import Checkpoint
from vlbeit_jax.runtime.hooks.divergence import Divergence
from vlbeit_jax.runtime.hooks.evaluate import Evaluate, Evaluator
from vlbeit_jax.runtime.hooks.log import Log
from vlbeit_jax.runtime.timer import Timer


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


@pytest.mark.parametrize(("bad", "kept"), [(1, 1), (2, 2), (3, 2)])
def test_a_run_ends_at_the_first_refused_step_and_names_the_newest_checkpoint(bad, kept):
    """The step has kept its old state, so a checkpoint that is saved before its metrics is good."""
    saves = Saves()
    message = f"step {bad}: not finite: {{'loss': nan}}; .* that of step {kept}; lower"
    with pytest.raises(FloatingPointError, match=message):
        loop([Divergence(saves.latest), checkpoint(saves, 1)], losses={bad: np.nan})
    assert saves.latest() == kept


def test_divergence_names_the_model_state_if_all_metrics_are_finite():
    hook = Divergence(lambda: None)
    hook.on_metrics(6, {"loss": 1.0, "skipped": 0.0})
    message = "step 7: not finite: the model state; there is no checkpoint yet"
    with pytest.raises(FloatingPointError, match=message):
        hook.on_metrics(7, {"loss": 1.0, "skipped": 1.0})


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
        lines: Any = Lines()
        loop([Recorder(stop=stop), Evaluate(evaluators, "frozen", lines, Timer(1.0))], steps=5)
        assert lines.lines == [
            (step, "validation", {f"{prefix}score": float(step)}) for step, prefix in expected
        ]


@dataclasses.dataclass
class Averaged:
    """A state with an average, as far as evaluation is concerned."""

    params: float
    ema: float

    @property
    def averaged_params(self):
        return self.ema


def test_averaged_parameters_are_evaluated_beside_the_raw_ones():
    lines: Any = Lines()
    evaluator = Evaluator("", 2, lambda state, frozen: {"score": state.params})
    for ema in (False, True):
        hook = Evaluate([evaluator], "frozen", lines, Timer(1.0), ema=ema)
        hook.after_step(2, Averaged(params=1.0, ema=0.5), None)
    assert lines.lines == [
        (2, "validation", {"score": 1.0}),
        (2, "validation", {"score": 1.0}),
        (2, "validation_ema", {"score": 0.5}),
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


def test_refused_steps_are_counted_and_not_averaged():
    lines = Lines()
    hook = log(lines, Timer(1.0), every=4)
    for step, skipped in ((1, 0.0), (2, 1.0), (3, 1.0), (4, 0.0)):
        hook.on_metrics(step, {"loss": 8.0, "skipped": skipped})
    hook.after_step(4, None, None)
    ((_, _, line),) = lines.lines
    assert (line["skipped"], line["loss"]) == (2, 8)


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
