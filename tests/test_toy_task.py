"""A task that the package has never seen trains, logs, evaluates and resumes.

It is the whole of ``examples/add_a_task.py``. Nothing in the package is edited for it; its name is
added to the table of tasks.
"""

import contextlib
import json

import jax
import numpy as np
import pytest

from examples.add_a_task import ROWS, WIDTH, PointsConfig, config
from tests import tiny
from vlbeit_jax import tasks
from vlbeit_jax.config.parse import to_dict
from vlbeit_jax.errors import UsageError
from vlbeit_jax.runtime import steps
from vlbeit_jax.runtime.hooks.base import Hook
from vlbeit_jax.runtime.hooks_of_run import hooks_of
from vlbeit_jax.runtime.start import train
from vlbeit_jax.tasks.abstract import abstract_step
from vlbeit_jax.tasks.flops import step_flops


@pytest.fixture(autouse=True)
def fit_line(monkeypatch):
    monkeypatch.setitem(tasks.TASKS, "fit_line", "examples.add_a_task:FitLine")


class StopAfter(Hook):
    """Ends a run early, as a preemption does."""

    def __init__(self, last):
        self.last = last

    def should_stop(self, step):
        return "stopped by the test" if step == self.last else None


@contextlib.contextmanager
def stops_after(last):
    """Lets the runs of its body end after a step."""

    def hooks(*arguments):
        return [*hooks_of(*arguments), StopAfter(last)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "hooks_of", hooks)
        yield


def test_it_trains_logs_and_evaluates(tmp_path):
    state = train(config(), tmp_path)
    lines = tiny.metrics_of(tmp_path)
    training = [line for line in lines if line["split"] == "train"]
    held_out = [line for line in lines if line["split"] == "validation"]
    assert [line["step"] for line in training] == [line["step"] for line in held_out] == [4, 8]
    assert training[-1]["fit/loss"] < training[0]["fit/loss"]
    assert held_out[-1]["line/error"] < held_out[0]["line/error"]
    assert held_out[-1]["line/slope"] == pytest.approx(float(state.params["slope"].mean()))


def test_it_resumes_bit_for_bit(tmp_path):
    whole = train(config(), tmp_path / "whole")
    with stops_after(5):
        assert int(train(config(), tmp_path / "parts").step) == 5
    again = train(config(), tmp_path / "parts")
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(whole), jax.device_get(again))
    changed = config(12, points=PointsConfig(slope=3.0))
    with pytest.raises(UsageError, match=r"task.points.slope: the checkpoint has 2.0, .* has 3.0"):
        train(changed, tmp_path / "parts")
    # A setting that may change is no other run, and takes effect.
    train(config(12, every=6), tmp_path / "parts")
    steps = [each["step"] for each in tiny.metrics_of(tmp_path / "parts") if "line/slope" in each]
    assert steps == [4, 8, 12]


def test_it_compiles_ahead_of_time_and_its_operations_are_counted():
    step = abstract_step(config(), tiny.mesh_of(2))
    assert step.step.lower(step.state, step.frozen, step.batches).compile() is not None
    # Forward and the gradient of the slope: a multiplication and an addition each.
    assert step_flops(config()).model == 2 * 2 * ROWS * WIDTH


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"schedule": "image"}, "config.task.schedule='image': .* out of points"),
        ({"points": {"slope": 0.25}}, "config.task.points.slope=0.25 is not allowed"),
        ({"points": {"slope": -1.0}}, "config.task.points.slope=-1.0: must be >= 0"),
        ({"points": {"slop": 1.0}}, "config.task.points.slop: .* mean config.task.points.slope"),
    ],
)
def test_bad_settings_are_refused_by_name(changed, said):
    with pytest.raises(UsageError, match=said):
        tasks.parse({"task": {"kind": "fit_line"} | changed})
    known = "config.task.kind='fit_lines': must be one of .*, fit_line"
    with pytest.raises(UsageError, match=known):
        tasks.parse({"task": {"kind": "fit_lines"}})


def test_it_is_read_back_from_the_folder_of_a_run(tmp_path):
    values = json.loads(json.dumps(to_dict(config(points=PointsConfig(slope=5.0)))))
    assert tasks.parse(values) == config(points=PointsConfig(slope=5.0))
