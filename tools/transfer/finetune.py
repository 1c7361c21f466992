"""The fine-tuned part of the transfer study: one task from pretrained and from random starts.

    python -m tools.transfer.finetune TASK RUN FOLDER [--all_rates]

TASK is emoji_category, retrieval, vqa_cell or segmentation. RUN is a finished pretraining run.
FOLDER gets the fine-tuning runs, the answers of each of them, and results.json. If the command was
cut off, run it again, and it continues: it does not train a finished run again, unless the run's
data would now differ. If RUN or the recipe has changed, the command empties FOLDER
first.

Each start has one learning rate: the one that validation rows chose for most folds of the sample's
own run. With --all_rates, each start tries three or four, and the command chooses anew; do this for
another RUN.
"""

import importlib
import json
import pathlib
import shutil
import time
from typing import Any

from tools import command
from tools.transfer.fit import PARTS, Fit, Study, StudyTask
from tools.transfer.results import table
from tools.transfer.workers import carry_out
from vlbeit_jax.data.source import open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.runtime.pretrained import open_run
from vlbeit_jax.training.saved_run import finished_step, tree_fingerprint

TASKS = ("emoji_category", "retrieval", "vqa_cell", "segmentation")
MADE_FROM, RESULTS = "made_from.json", "results.json"
ALL_RATES = "--all_rates"


def study_of(name: str) -> StudyTask:
    """Returns the task with this name.

    Raises:
      UsageError: there is no such task.
    """
    if name not in TASKS:
        raise UsageError(f"task {name}: give one of {', '.join(TASKS)}")
    return importlib.import_module(f"tools.transfer.{name}").TASK


def carried_out(study: Study, workers: int = 0) -> dict[str, Any]:
    """Returns the task's ``results`` and the ``protocol`` that led to them; see ``answered``."""
    found, protocol = answered(study, workers)
    results = study.task.results(found, study.folder)
    # The task's own protocol says more of the rates: what each gave, and which ones were chosen.
    results["protocol"] = protocol | results["protocol"]
    return results


def answered(study: Study, workers: int = 0) -> tuple[dict[Fit, Any], dict[str, Any]]:
    """Returns the answers of each run, and what they depend on.

    Args:
      study: the task's study. Its folder is emptied if another run or recipe has made its contents.
      workers: number of processes; 0 takes one per core.

    Raises:
      UsageError: the pretraining run is not finished, or the folder is not that of a study.
    """
    run = open_run(study.run)
    step = finished_step(study.run, run.config.run.steps)
    recipe = study.recipe()
    recipe["task"].pop("text_tokenizer", None)  # A path; the fingerprint stands beside it.
    # A run has its rate in its name, so another rate makes no other run wrong.
    recipe["optimizer"].pop("peak_lr")
    made_from = {
        "run": {"step": step, "weights": tree_fingerprint(run.params)},
        "source": open_set(study.task.source).fingerprint,
        "text_tokenizer": run.model.fingerprints.get("text_tokenizer"),
        "recipe": recipe,
        "parts": PARTS,
    }
    _claim(study.folder, made_from)
    study.task.prepare(study.folder)
    found, began = {}, time.monotonic()
    count = sum(map(len, study.units))
    seconds = 0.0
    for fit, carried in carry_out(study, workers):
        found[fit] = carried["answers"]
        seconds += carried["cpu_seconds"]
        minutes = (time.monotonic() - began) / 60
        print(f"{fit.name} is done: {len(found)} of {count}, {minutes:.1f} minutes")
    return found, made_from | {"cpu_seconds": round(seconds)}


def _claim(folder: pathlib.Path, made_from: dict[str, Any]) -> None:
    """Empties the folder, unless the same run and recipe have made its contents."""
    origin = folder / MADE_FROM
    text = json.dumps(made_from, indent=1) + "\n"
    if folder.is_dir() and any(folder.iterdir()):
        if not origin.is_file():
            raise UsageError(
                f"{folder} holds files but no {MADE_FROM}, so it is not the folder of a study; "
                "choose another one"
            )
        if origin.read_text() == text:
            return
        print(f"{folder} was made from another run or recipe, so it is emptied and made again")
        # If this is cut off, the folder is emptied the next time, whatever that time's recipe is.
        origin.write_text("being emptied\n")
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path != origin:
                path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    origin.write_text(text)


def main(arguments: list[str]) -> None:
    """Carries out the study of a task, writes results.json and prints a table."""
    paths = [argument for argument in arguments if argument != ALL_RATES]
    if len(paths) != 3 or any(path.startswith("--") for path in paths):
        raise UsageError(f"usage: python -m tools.transfer.finetune TASK RUN FOLDER [{ALL_RATES}]")
    name, run, folder = paths[0], *map(pathlib.Path, paths[1:])
    every = ALL_RATES in arguments
    study = Study(study_of(name), run.absolute(), folder.absolute(), all_rates=every)
    found = carried_out(study)
    (folder / RESULTS).write_text(json.dumps(found, indent=1) + "\n")
    print(table(found["results"]))


if __name__ == "__main__":
    command.run(main, __doc__)
