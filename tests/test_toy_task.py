"""A whole task in one file, which the package has never seen: it trains, logs, evaluates, resumes.

Fits y = slope * sum(x) with one float32 parameter, on a stream of its own name. Nothing in the
package is edited for it; its name is added to the table of tasks.
"""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vlbeit_jax import tasks
from vlbeit_jax.config.common import OptimizerConfig, RunConfig
from vlbeit_jax.config.parse import to_dict
from vlbeit_jax.config.schema import AT_LEAST_0, POSITIVE, section, setting
from vlbeit_jax.data.examples.base import ROW_SPECS, Spec
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.params import declare
from vlbeit_jax.objectives.base import Objective, Term
from vlbeit_jax.runtime.hooks.base import Hook
from vlbeit_jax.runtime.start import train
from vlbeit_jax.tasks import Config, base
from vlbeit_jax.tasks.abstract import abstract_step
from vlbeit_jax.tasks.flops import step_flops
from vlbeit_jax.training.schedule import schedule_problems
from vlbeit_jax.training.warm_start import WarmStart

ROWS, WIDTH = 16, 4


class Line(nn.Module):
    @nn.compact
    def __call__(self, x):
        slope = self.param("slope", declare(nn.initializers.zeros, None), (WIDTH,))
        assert slope.dtype == jnp.float32  # As declared, whatever the products' type is.
        return jnp.einsum("rw,w->r", x, slope)


@dataclasses.dataclass(frozen=True)
class SquaredError(Objective):
    def weights(self, batch):
        return {"fit": batch["weight"].sum()}

    def __call__(self, variables, batch, ctx):
        error = Line().apply({"params": variables.params}, batch["x"]) - batch["y"]
        loss = (jnp.square(error) * batch["weight"]).sum()
        return {"fit": Term(loss=loss, weight=batch["weight"].sum())}, {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PointsConfig:
    slope: float = setting(2.0, "of the line on which the points lie", AT_LEAST_0)

    def problems(self):
        if self.slope == 0.25:
            yield "slope=0.25 is not allowed in this toy"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy:
    kind = "toy"

    schedule: str = setting("toy", "streams of each step")
    every: int = setting(4, "steps between evaluations", POSITIVE, may_change=True)
    points: PointsConfig = section(PointsConfig, "what is learnt")

    def problems(self):
        return schedule_problems(self.schedule, ("toy",))

    def training_problems(self):
        return ()

    def resolve(self):
        return self

    def init(self, key):
        return Line().init(key, jnp.zeros((1, WIDTH)))["params"]

    def streams(self):
        example = ROW_SPECS | {"x": Spec((WIDTH,), np.float32), "y": Spec((), np.float32)}
        return {"toy": base.Stream(SquaredError(), example, ROWS, tokens=1)}

    def frozen(self):
        return {}

    def warm_start(self):
        return WarmStart()

    def open(self, folder=None):
        return OpenToy(self)


@dataclasses.dataclass(frozen=True)
class OpenToy:
    task: Toy
    frozen = {}
    fingerprints = {}
    chance = {}
    headlines = ()

    def save_assets(self, folder):
        pass

    def training_data(self, run):
        return Points(self.task.points.slope)

    def evaluators(self, data, place):
        def slope(state, frozen):
            learnt = float(jax.device_get(state.params["slope"]).mean())
            return {"slope": learnt, "error": abs(learnt - self.task.points.slope)}

        return [base.Evaluator("line", self.task.every, slope)]

    def prepare_state(self, state, data, place):
        return state


@dataclasses.dataclass(frozen=True)
class Points:
    slope: float
    fingerprints = {"points": "v1"}
    trained_on = ()
    sources = {}

    def examples(self, stream):
        return self

    def save_seen(self, folder):
        pass

    def __len__(self):
        return 10**6

    def __getitem__(self, index):
        x = np.random.default_rng(index).normal(size=WIDTH).astype(np.float32)
        row = {"weight": np.float32(1), "uid": np.uint32(index)}
        return row | {"x": x, "y": np.float32(self.slope * x.sum())}


def config(steps=8, **task):
    return Config(
        task=Toy(**task),
        run=RunConfig(steps=steps, log_every=4, checkpoint_every=4),
        optimizer=OptimizerConfig(peak_lr=0.3, warmup_steps=1, weight_decay=0.0),
    )


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    monkeypatch.setitem(tasks.TASKS, "toy", "tests.test_toy_task:Toy")


class StopAfter(Hook):
    """Ends a run early, as a preemption does."""

    def __init__(self, last):
        self.last = last

    def should_stop(self, step):
        return "stopped by the test" if step == self.last else None


def test_it_trains_logs_and_evaluates(tmp_path):
    state = train(config(), tmp_path)
    lines = tiny.metrics_of(tmp_path)
    training = [line for line in lines if line["split"] == "train"]
    held_back = [line for line in lines if line["split"] == "validation"]
    assert [line["step"] for line in training] == [line["step"] for line in held_back] == [4, 8]
    assert training[-1]["fit/loss"] < training[0]["fit/loss"]
    assert held_back[-1]["line/error"] < held_back[0]["line/error"]
    assert held_back[-1]["line/slope"] == pytest.approx(float(state.params["slope"].mean()))


def test_it_resumes_bit_for_bit(tmp_path, monkeypatch):
    whole = train(config(), tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("vlbeit_jax.runtime.start.Interrupt", lambda: StopAfter(4))
        assert int(train(config(), tmp_path / "parts").step) == 4
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
        ({"schedule": "image"}, "config.task.schedule='image': .* out of toy"),
        ({"points": {"slope": 0.25}}, "config.task.points.slope=0.25 is not allowed"),
        ({"points": {"slope": -1.0}}, "config.task.points.slope=-1.0: must be >= 0"),
        ({"points": {"slop": 1.0}}, "config.task.points.slop: .* mean config.task.points.slope"),
    ],
)
def test_bad_settings_are_refused_by_name(changed, said):
    with pytest.raises(UsageError, match=said):
        tasks.parse({"task": {"kind": "toy"} | changed})
    with pytest.raises(UsageError, match="config.task.kind='toys': must be one of .*, toy"):
        tasks.parse({"task": {"kind": "toys"}})


def test_it_is_read_back_from_the_folder_of_a_run(tmp_path):
    values = json.loads(json.dumps(to_dict(config(points=PointsConfig(slope=5.0)))))
    assert tasks.parse(values) == config(points=PointsConfig(slope=5.0))
