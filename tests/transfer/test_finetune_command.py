"""python -m tools.transfer.finetune: its arguments, its folder, and its processes."""

import dataclasses
import json
import os
import pathlib

import pytest

from tools.transfer import finetune
from tools.transfer.fit import Fit
from tools.transfer.workers import carry_out
from vlbeit_jax.errors import UsageError


def test_a_folder_belongs_to_one_run_and_recipe(tmp_path):
    folder = tmp_path / "study"
    finetune._claim(folder, {"weights": 1})
    (folder / "runs").mkdir()
    (folder / "runs" / "kept").touch()
    finetune._claim(folder, {"weights": 1})
    assert (folder / "runs" / "kept").exists()
    finetune._claim(folder, {"weights": 2})
    assert [path.name for path in folder.iterdir()] == [finetune.MADE_FROM]
    assert json.loads((folder / finetune.MADE_FROM).read_text()) == {"weights": 2}
    (tmp_path / "other").touch()
    with pytest.raises(UsageError, match="not the folder of a study"):
        finetune._claim(tmp_path, {})


@dataclasses.dataclass(frozen=True)
class Noted:
    """Stands in for a study: its runs tell where they were carried out."""

    folder: pathlib.Path
    units = [[Fit("random", 1.0, part), Fit("pretrained", 1.0, part)] for part in range(3)]

    def carry_out(self, unit):
        print("to the log")
        return [{"run": each.name, "cores": len(os.sched_getaffinity(0))} for each in unit]


def test_each_process_has_one_core_and_answers_come_in_order(tmp_path, capfd):
    found = list(carry_out(Noted(tmp_path), workers=2))
    assert [each for each, _ in found] == [each for unit in Noted.units for each in unit]
    assert all(answer == {"run": each.name, "cores": 1} for each, answer in found)
    logs = "".join(path.read_text() for path in tmp_path.glob("worker_*.log"))
    assert logs.count("to the log") == 3 and "to the log" not in capfd.readouterr().out


@pytest.mark.parametrize("more", [[], ["--all-rates"], ["FOLDER", "MORE"]])
def test_wrong_arguments_are_answered_with_the_usage(more):
    with pytest.raises(UsageError, match="TASK RUN FOLDER"):
        finetune.main(["retrieval", "RUN", *more])


@pytest.mark.parametrize("flags", [[], ["--all_rates"]])
def test_the_flag_asks_for_all_rates(flags, tmp_path, monkeypatch):
    seen = []

    def carried_out(study):
        seen.append(study)
        return {"results": {}}

    monkeypatch.setattr(finetune, "carried_out", carried_out)
    finetune.main(["retrieval", "RUN", str(tmp_path), *flags])
    assert seen[0].all_rates == bool(flags)
