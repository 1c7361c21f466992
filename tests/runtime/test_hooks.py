"""Each hook does what it is for, with steps in plain Python."""

import dataclasses
import threading
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from tests.runtime.plain_steps import Lines, Recorder, Saves, checkpoint, loop
from vlbeit_jax.config.common import LoaderConfig
from vlbeit_jax.cost.flops import StepFlops
from vlbeit_jax.data.sampling import TrainingExamples
from vlbeit_jax.errors import Diverged
from vlbeit_jax.runtime.hooks.divergence import Divergence
from vlbeit_jax.runtime.hooks.evaluate import Evaluate, Evaluator
from vlbeit_jax.runtime.hooks.log import Log
from vlbeit_jax.runtime.records import record_ids
from vlbeit_jax.runtime.timer import Timer
from vlbeit_jax.training.schedule import Schedule


@pytest.mark.parametrize(
    ("stop", "saved"), [(None, [2, 4, 5]), (3, [2, 3]), (4, [2, 4])], ids=["end", "stop", "both"]
)
def test_checkpoints_are_saved_on_their_period_and_on_every_ending(stop, saved):
    saves = Saves()
    loop([Recorder(stop=stop), checkpoint(saves, 2)], steps=5)
    assert saves.steps == saved and saves.waited


def test_evaluators_run_on_their_periods_and_at_the_end_of_a_finished_run_only():
    def run(state, frozen):
        assert frozen == "frozen"
        return {"score": float(state.step)}

    evaluators = [Evaluator("a", 2, run), Evaluator("", 3, run), Evaluator("never", 0, run)]
    whole = [(2, "a/"), (3, ""), (4, "a/"), (5, "a/"), (5, "")]
    # Also if the run is stopped at a step at which an evaluation is due.
    for stop, expected in ((None, whole), (1, []), (2, []), (3, whole[:1])):
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
    for step, refused in ((1, 0.0), (2, 1.0), (3, 1.0), (4, 0.0)):
        hook.on_metrics(step, {"loss": 8.0, "refused": refused})
    hook.after_step(4, None, None)
    ((_, _, line),) = lines.lines
    assert (line["refused"], line["loss"]) == (2, 8)


def test_the_mean_leaves_out_refused_steps():
    lines = Lines()
    hook = log(lines, Timer(1.0), every=3)
    for step, loss in ((1, 2.0), (2, np.nan), (3, 4.0)):
        hook.on_metrics(step, {"loss": loss, "refused": float(np.isnan(loss))})
    hook.after_step(3, None, None)
    for step in (4, 5, 6):
        hook.on_metrics(step, {"loss": np.inf, "refused": 1.0})
    hook.after_step(6, None, None)
    first, second = (line for *_, line in lines.lines)
    assert (first["loss"], first["refused"]) == (3.0, 1)
    assert np.isnan(second["loss"]) and second["refused"] == 3


def divergence(saves, lines, in_a_row=3, share=0.01):
    return Divergence(saves.latest, lines, lambda step: {"pair": [f"id{step}"]}, in_a_row, share)


def test_refused_steps_in_a_row_end_the_run_and_each_is_reported():
    """The steps have kept the old state, so a checkpoint saved before their metrics is good."""
    saves, lines = Saves(), Lines()
    message = "step 5: 3 updates in a row were refused, .* loss nan\\); .* that of step 5, and it"
    with pytest.raises(Diverged, match=message):
        loop(
            [divergence(saves, lines), checkpoint(saves, 1)],
            steps=9,
            losses={1: np.inf, 3: np.nan, 4: np.nan, 5: np.nan},
        )
    assert lines.named == [
        (step, f"loss {value}", {"pair": [f"id{step}"]})
        for step, value in ((1, "inf"), (3, "nan"), (4, "nan"), (5, "nan"))
    ]
    assert [(step, split) for step, split, _ in lines.lines] == [
        (step, "refused") for step in (1, 3, 4, 5)
    ]


def test_a_share_of_refused_steps_ends_the_run():
    hook = divergence(Saves(), Lines(), share=0.002)
    hook.on_metrics(1, {"loss": np.nan})
    for step in range(2, 1003):  # The first one is forgotten.
        hook.on_metrics(step, {"loss": np.nan if step in (500, 1002) else 1.0})
    with pytest.raises(Diverged, match="3 of the last 1000 updates .* there is no checkpoint yet"):
        hook.on_metrics(1003, {"loss": np.nan})


def test_the_records_of_a_refused_step_are_read_at_the_same_time():
    """The other processes wait for them: of a bucket, each takes some tens of milliseconds."""
    together = threading.Barrier(4)

    class Examples(TrainingExamples):
        def __init__(self):
            pass

        def record(self, index):
            together.wait(20)
            return {"id": f"text/{index}".encode()}

    run = SimpleNamespace(
        task=SimpleNamespace(streams=lambda: {"text": SimpleNamespace(batch_size=8)}),
        schedule=Schedule.parse("text"),
        config=SimpleNamespace(loader=LoaderConfig(workers=2, read_threads=2)),
    )
    found = record_ids(cast(Any, run), {"text": Examples()}, 3)
    assert found == {"text": [f"text/{number}" for number in range(16, 24)]}


def test_divergence_names_the_parameters_if_all_metrics_are_finite():
    lines = Lines()
    hook = divergence(Saves(), lines, in_a_row=1)
    hook.on_metrics(6, {"loss": 1.0, "refused": 0.0})
    with pytest.raises(Diverged, match="step 7: 1 .* .here: the new parameters or the model state"):
        hook.on_metrics(7, {"loss": 1.0, "refused": 1.0})
