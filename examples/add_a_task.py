"""How do I add a task? This file is a whole one: it trains, logs, evaluates, resumes and compiles.

    python examples/add_a_task.py RUN [--steps=100]

Input: a folder for the run. Output: the log lines of a run that fits a line through points, and the
slope that it has learnt:

    learnt slope: 2.00

The package itself does not change. For a task of your own, copy this file to ``vlbeit_jax/tasks/``,
replace its parts from top to bottom, and name it in ``TASKS`` there. ``vlbeit_jax/tasks/base.py``
says what each method is for; ``vlbeit_jax/tasks/text_classification.py`` is a real task.
"""

import argparse
import dataclasses
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vlbeit_jax import tasks
from vlbeit_jax.config.common import OptimizerConfig, RunConfig
from vlbeit_jax.config.schema import AT_LEAST_0, POSITIVE, section, setting
from vlbeit_jax.data.examples.base import ROW_SPECS, Spec
from vlbeit_jax.models.params import declare
from vlbeit_jax.objectives.base import Objective, Term
from vlbeit_jax.runtime.start import train
from vlbeit_jax.tasks import Config, base
from vlbeit_jax.training.schedule import schedule_problems
from vlbeit_jax.training.warm_start import WarmStart

ROWS, WIDTH = 16, 4


class Line(nn.Module):
    """The network: one parameter, float32 whatever type the products have."""

    @nn.compact
    def __call__(self, x):
        """Returns slope * (x1 + ... + x4) of each row [rows, 4], with a slope for each number."""
        slope = self.param("slope", declare(nn.initializers.zeros, None), (WIDTH,))
        return jnp.einsum("rw,w->r", x, slope)


@dataclasses.dataclass(frozen=True)
class SquaredError(Objective):
    """The loss: a sum over rows and its weight, so that a batch may be split at will."""

    def weights(self, batch):
        """Returns what the sum of each term is divided by, known from the data alone."""
        return {"fit": batch["weight"].sum()}

    def __call__(self, variables, batch, ctx):
        """Returns the terms of the loss, and the new model state: here none."""
        error = Line().apply({"params": variables.params}, batch["x"]) - batch["y"]
        loss = (jnp.square(error) * batch["weight"]).sum()
        return {"fit": Term(loss=loss, weight=batch["weight"].sum())}, {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PointsConfig:
    """Settings with their meaning and bounds: --help and messages are made of them."""

    slope: float = setting(2.0, "of the line on which the points lie", AT_LEAST_0)

    def problems(self):
        """A rule that no bound can state."""
        if self.slope == 0.25:
            yield "slope=0.25 is not allowed in this example"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitLine:
    """The task as a value: what can be said of it without reading a file."""

    kind = "fit_line"

    schedule: str = setting("points", "streams of each step")
    every: int = setting(4, "steps between evaluations", POSITIVE, may_change=True)
    points: PointsConfig = section(PointsConfig, "what is learnt")

    def problems(self):
        """Says what is wrong with the settings together."""
        return schedule_problems(self.schedule, ("points",))

    def training_problems(self):
        """Says what a run needs beyond a description, such as sources."""
        return ()

    def resolve(self):
        """Fills in settings that follow from files."""
        return self

    def init(self, key):
        """Returns the parameters at the start."""
        return Line().init(key, jnp.zeros((1, WIDTH)))["params"]

    def streams(self):
        """Returns, for each stream, its loss, the shapes of a row and the rows of a batch."""
        example = ROW_SPECS | {"x": Spec((WIDTH,), np.float32), "y": Spec((), np.float32)}
        return {"points": base.Stream(SquaredError(), example, ROWS, tokens=1)}

    def frozen(self):
        """Returns the shapes of weights that are used and not trained."""
        return {}

    def warm_start(self):
        """Returns the rules for --config.run.start_from."""
        return WarmStart()

    def open(self, folder=None):
        """Reads tokenizers and frozen weights."""
        return OpenFitLine(self)


@dataclasses.dataclass(frozen=True)
class OpenFitLine:
    """The task with what it reads from files: here nothing."""

    task: FitLine
    frozen = {}
    fingerprints = {}
    chance = {}
    headlines = ()  # Figures besides losses and accuracies that a log line shows.

    def save_assets(self, folder):
        """Copies into the run's folder what the model needs later, such as tokenizers."""

    def training_data(self, run):
        """Opens the training sets."""
        return Points(self.task.points.slope)

    def evaluators(self, data, place):
        """Returns what is evaluated during training, and how often."""

        def slope(state, frozen):
            learnt = float(jax.device_get(state.params["slope"]).mean())
            return {"slope": learnt, "error": abs(learnt - self.task.points.slope)}

        return [base.Evaluator("line", self.task.every, slope)]

    def prepare_state(self, state, data, place):
        """Changes the first state by looking at data: VQ-KD starts its codebook here."""
        return state


@dataclasses.dataclass(frozen=True)
class Points:
    """The training data: a row is a function of its number, so no iterator has to be saved."""

    slope: float
    fingerprints = {"points": "v1"}
    trained_on = ()
    sources = {}  # Prepared sets by stream, which the first lines of a run count.

    def examples(self, stream):
        """Returns the rows of a stream."""
        return self

    def save_seen(self, folder):
        """Keeps what was trained on, so that an evaluation can leave it out."""

    def __len__(self):
        return 10**6

    def __getitem__(self, index):
        x = np.random.default_rng(index).normal(size=WIDTH).astype(np.float32)
        row = {"weight": np.float32(1), "uid": np.uint32(index)}
        return row | {"x": x, "y": np.float32(self.slope * x.sum())}


def config(steps: int = 8, **task) -> Config:
    """Returns the configuration of a run with some settings of the task."""
    return Config(
        task=FitLine(**task),
        run=RunConfig(steps=steps, log_every=4, checkpoint_every=4),
        optimizer=OptimizerConfig(peak_lr=0.3, warmup_steps=1, weight_decay=0.0),
    )


def main() -> None:
    """Trains, and prints the slope."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=100)
    given = parser.parse_args()
    # A task in the package is a line of this table.
    tasks.TASKS["fit_line"] = f"{__name__}:FitLine"
    state = train(config(given.steps), given.run)
    print(f"learnt slope: {float(state.params['slope'].mean()):.2f}")


if __name__ == "__main__":
    main()
