"""A study trains the runs again whose data would now be made otherwise, and no others."""

import contextlib
import dataclasses
import os

import numpy as np
import pytest

from tests import tiny
from tests.convert.conftest import write_random_run
from tools.emoji import sets
from tools.transfer import finetune
from tools.transfer.fit import ANSWERS, Fit, Study
from vlbeit_jax.data.identity import TRAIN
from vlbeit_jax.data.source import open_set
from vlbeit_jax.runtime.run_folder import write_config
from vlbeit_jax.training.checkpoint import Checkpointer

FITS = [Fit("random", 1e-3, part) for part in range(3)]


@pytest.fixture(scope="module")
def run(world, tmp_path_factory):
    config = tiny.changed(tiny.pretrain_config(world), task={"model": {"text_positions": 24}})
    return write_random_run(tmp_path_factory.mktemp("changed") / "run", config, world)


@pytest.fixture
def few(monkeypatch):
    """What the sets of each fold are made of: few emoji, which a test may change."""
    found = open_set("sample:emoji")
    parts = [
        {split: records[:6] for split, records in sets.by_split(found, fold).items()}
        for fold in range(3)
    ]
    monkeypatch.setattr(sets, "by_split", lambda found, fold: parts[fold])
    return parts


@pytest.fixture
def study(run, tmp_path, monkeypatch):
    """A study whose runs note their part in the checkpoint and train nothing."""

    def noted(self, fit, config):
        place = self.place(fit)
        place.mkdir(parents=True)
        write_config(place, config)
        (source,) = config.task.image.sources
        described = {"trained_on": open_set(source).contains, "step": 1}
        with contextlib.closing(Checkpointer(place / "checkpoints")) as checkpointer:
            checkpointer.save(1, {"params": {"bias": np.zeros(1)}}, described)
        return {"part": fit.part}

    monkeypatch.setattr(Study, "_trained", noted)
    return Study(finetune.study_of("emoji_category"), run, tmp_path)


def carried_out(study):
    """Returns which runs were trained, as a start of the command would."""
    before = stamps(study)
    study.task.prepare(study.folder)
    answers = [study.answers_of(fit)["answers"] for fit in FITS]
    assert answers == [{"part": fit.part} for fit in FITS]
    after = stamps(study)
    return [fit.part for fit in FITS if before.get(fit.part) != after[fit.part]]


def stamps(study):
    """When and as which file each run's answers were written."""
    paths = {fit.part: study.place(fit) / ANSWERS for fit in FITS}
    found = {part: os.stat(path) for part, path in paths.items() if path.is_file()}
    return {part: (each.st_ino, each.st_mtime_ns) for part, each in found.items()}


def test_only_runs_of_changed_data_are_trained_again(study, few, capsys):
    assert carried_out(study) == [0, 1, 2]
    kept = (study.folder / "sets" / "1").stat().st_ino
    assert carried_out(study) == []  # The control: the same data, made again.
    assert (study.folder / "sets" / "1").stat().st_ino == kept
    assert "trained again" not in capsys.readouterr().out

    few[1][TRAIN][0]["label"] = few[1][TRAIN][-1]["label"] = "Objects"
    assert carried_out(study) == [1]
    assert "random_0.001_1 was trained on other data" in capsys.readouterr().out
    assert carried_out(study) == []
    assert [path.name for path in sorted((study.folder / "sets").iterdir())] == ["0", "1", "2"]


def test_a_run_that_was_cut_off_does_not_continue_on_other_data(study, few):
    carried_out(study)
    (study.place(FITS[2]) / ANSWERS).unlink()
    (study.place(FITS[2]) / "left").touch()
    few[2][TRAIN].pop()
    assert carried_out(study) == [2]
    assert not (study.place(FITS[2]) / "left").exists()


def test_a_removed_set_is_made_again_and_its_runs_are_kept(study, few):
    carried_out(study)
    sets_of = study.folder / "sets"
    (sets_of / "0").rename(study.folder / "away")
    assert carried_out(study) == [] and (sets_of / "0").is_dir()


def test_another_rate_keeps_finished_runs_and_another_recipe_does_not(study, few, monkeypatch):
    monkeypatch.setattr(finetune, "carry_out", lambda study, workers: iter(()))
    made_from = finetune.answered(study)[1]
    assert "peak_lr" not in made_from["recipe"]["optimizer"]
    finished = study.place(FITS[0])
    finished.mkdir(parents=True)
    task = dataclasses.replace(study.task, settled=dict.fromkeys(study.task.rates, 1e-4))
    finetune.answered(dataclasses.replace(study, task=task))
    finetune.answered(dataclasses.replace(study, all_rates=True))
    assert finished.is_dir()
    finetune.answered(dataclasses.replace(study, steps=7))
    assert not finished.exists()
