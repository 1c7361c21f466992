"""One fine-tuning run of the study: its configuration, its training and its answers."""

import dataclasses
import json
import pathlib
import runpy
import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from vlbeit_jax.config.common import MeshConfig
from vlbeit_jax.config.parse import to_dict
from vlbeit_jax.data.source import open_set
from vlbeit_jax.runtime.finetuned import FineTunedRun
from vlbeit_jax.runtime.start import train
from vlbeit_jax.shapes import Float
from vlbeit_jax.tasks import Config, parse
from vlbeit_jax.tasks.assets import TEXT_TOKENIZER
from vlbeit_jax.tasks.runs import read_config
from vlbeit_jax.training.mesh import make_mesh
from vlbeit_jax.training.saved_run import newest_step, trained_on

RECIPES = pathlib.Path(__file__).parents[2] / "configs" / "sample_finetune.py"
PRETRAINED, RANDOM = "pretrained", "random"
STARTS = (PRETRAINED, RANDOM)
PARTS = 3  # Number of folds, or of seeds if the data have no folds.
# File with a run's answers in the run's folder, written when they are complete. It is not
# answers.json, in which a run of question answering keeps its list of answers.
ANSWERS = "answered.json"


class Fit(NamedTuple):
    """Names one fine-tuning run.

    Attributes:
      start: PRETRAINED or RANDOM.
      rate: peak learning rate.
      part: the tested fold, and also the seed of the run.
    """

    start: str
    rate: float
    part: int

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return f"{self.start}_{self.rate:g}_{self.part}"


class Scores(NamedTuple):
    """Scores of a start, with the rates chosen on validation.

    Attributes:
      right: score of each row by the task's first metric, between 0 and 1.
      groups: group of each row; the bootstrap draws whole groups.
      metric: name of the metric in ``transfer.json``.
      each_group_once: whether each group counts once, and not each row.
      seeds: of training, over which each row is averaged; or folds, each with one seed.
    """

    right: Float[np.ndarray, " A"]
    groups: np.ndarray
    metric: str
    each_group_once: bool
    seeds: int


class StudyTask(Protocol):
    """A task of the study.

    Attributes:
      name: the task's name in ``transfer.json`` and in ``configs/sample_finetune.py``.
      source: the set in the package from which all its data are made.
      rates: learning rates of each start. Of equally good rates, the last one is chosen.
      settled: the rate of each start that validation chose among these for most folds, for the
        sample's own run.
    """

    name: str
    source: str
    rates: dict[str, tuple[float, ...]]
    settled: dict[str, float]

    def prepare(self, folder: pathlib.Path) -> None:
        """Makes the data sets in the study's folder that are missing, or would now be others."""
        ...

    def data(self, folder: pathlib.Path, part: int) -> dict[str, Any]:
        """Returns the task's settings that name the data of a part."""
        ...

    def answers(self, run: FineTunedRun, folder: pathlib.Path, part: int) -> dict[str, Any]:
        """Returns the answers of a run, ready for JSON."""
        ...

    def scores(self, found: dict[Fit, Any], start: str, folder: pathlib.Path) -> Scores:
        """Returns the scores of one of the starts."""
        ...

    def results(self, found: dict[Fit, Any], folder: pathlib.Path) -> dict[str, Any]:
        """Returns ``results`` in the form of ``transfer.json``, and the ``protocol``."""
        ...


@dataclasses.dataclass(frozen=True)
class Study:
    """The fine-tuning runs of one task.

    Attributes:
      task: the task that the runs learn.
      run: folder of the pretraining run.
      folder: folder of this study.
      steps: steps of each fine-tuning run; 0 takes the recipe's.
      starts: the starts from which runs are trained.
      all_rates: whether each start tries all its rates, and not the task's ``settled`` one alone.
    """

    task: StudyTask
    run: pathlib.Path
    folder: pathlib.Path
    steps: int = 0
    starts: tuple[str, ...] = STARTS
    all_rates: bool = False

    @property
    def units(self) -> list[list[Fit]]:
        """All runs, in units. The runs of a unit share one compiled program.

        Starts share none if one of them has a decay from block to block. Long units come first, so
        that all processes end at about the same time.
        """
        found: dict[tuple[int, float, bool], list[Fit]] = {}
        decays = self.recipe()["optimizer"]["layer_decay"] != 1.0
        for start in self.starts:
            rates = self.task.rates[start] if self.all_rates else (self.task.settled[start],)
            for rate in rates:
                for part in range(PARTS):
                    program = (part, rate, decays and start == RANDOM)
                    found.setdefault(program, []).append(Fit(start, rate, part))
        return [found[name] for name in sorted(found, key=lambda name: (-len(found[name]), name))]

    def recipe(self) -> dict[str, Any]:
        """Returns the settings that all runs share, with the network of the pretraining run."""
        values = runpy.run_path(str(RECIPES))["get_config"](self.task.name).to_dict()
        # Random starts need this too: they have no start whose network like_start could take.
        values["task"]["model"] = to_dict(read_config(self.run).task.model) | {
            "drop_path": values["task"]["model"]["drop_path"],
            "like_start": False,
        }
        if TEXT_TOKENIZER in values["task"]:
            values["task"][TEXT_TOKENIZER] = str(self.run / TEXT_TOKENIZER)
        if self.steps:
            values["run"]["steps"] = self.steps
            values["optimizer"]["warmup_steps"] = self.steps // 10
        return values

    def config(self, fit: Fit) -> Config:
        """Returns the configuration of a run."""
        values = self.recipe()
        for name, settings in self.task.data(self.folder, fit.part).items():
            values["task"][name] |= settings
        values["run"]["seed"] = fit.part
        values["run"]["start_from"] = str(self.run) if fit.start == PRETRAINED else ""
        values["optimizer"]["peak_lr"] = fit.rate
        if fit.start == RANDOM:
            # The lower blocks of a random start hold nothing yet that is worth keeping.
            values["optimizer"]["layer_decay"] = 1.0
        return parse(values)

    def place(self, fit: Fit) -> pathlib.Path:
        """Returns the folder of a run."""
        return self.folder / "runs" / fit.name

    def carry_out(self, unit: list[Fit]) -> list[dict[str, Any]]:
        """Returns the answers of each run of a unit; see ``answers_of``."""
        return [self.answers_of(fit) for fit in unit]

    def answers_of(self, fit: Fit) -> dict[str, Any]:
        """Returns the ``answers`` of a run and the ``cpu_seconds`` that they took.

        If the run has no stored answers, it is trained and evaluated first. If it was trained on
        other data than there are now, its folder is removed before.
        """
        place, config = self.place(fit), self.config(fit)
        if _has_other_data(place, config):
            print(f"{place} was trained on other data than there are now, so it is trained again")
            shutil.rmtree(place)
        answers = place / ANSWERS
        if not answers.is_file():
            began = time.process_time()
            found = self._trained(fit, config)
            seconds = round(time.process_time() - began, 1)
            new = answers.with_suffix(".new")
            new.write_text(json.dumps({"answers": found, "cpu_seconds": seconds}) + "\n")
            new.replace(answers)
        return json.loads(answers.read_text())

    def _trained(self, fit: Fit, config: Config) -> dict[str, Any]:
        """Trains a run, or the rest of it, and returns its answers."""
        place = self.place(fit)
        train(config, place)
        written = read_config(place)
        run = FineTunedRun.open(place, written, written.task.open(place))
        return self.task.answers(run, self.folder, fit.part)


def _has_other_data(place: pathlib.Path, config: Config) -> bool:
    """Says whether a run's newest checkpoint was trained on other data than its sources hold now.

    A run without a checkpoint does not say what it was trained on.
    """
    step = newest_step(place)
    if step is None:
        return False
    sources = getattr(config.task, config.task.schedule).sources
    now = {name for source in sources for name in open_set(source).contains}
    return trained_on(place, step) != now


def tried(found: Mapping[Fit, Any], start: str, rates: Sequence[float]) -> tuple[float, ...]:
    """Returns those of a start's rates with which there are runs, in their order."""
    return tuple(rate for rate in rates if Fit(start, rate, 0) in found)


def whole_mesh() -> Any:
    """Returns the mesh of all devices."""
    return make_mesh(MeshConfig())
