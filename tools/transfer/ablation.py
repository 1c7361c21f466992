"""The paper's ablation at the sample's scale: pretraining on more and more kinds of data.

    python -m tools.transfer.ablation FOLDER NAME=RUN NAME=RUN...

Each RUN is a finished pretraining run. The command compares each run with the run before it and
with the first one. FOLDER gets the fine-tuning runs and ablation.json. If the command was cut off,
run it again, and it continues.
"""

import json
import pathlib
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from tools import command
from tools.transfer import probing
from tools.transfer.finetune import answered, study_of
from tools.transfer.fit import PRETRAINED, Scores, Study
from tools.transfer.frozen import SET, kinds, labelled_emoji
from tools.transfer.results import told as told_gain
from vlbeit_jax.data.source import open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.metrics.interval import mean_by_group, paired_gain
from vlbeit_jax.runtime.features import Features
from vlbeit_jax.runtime.pretrained import open_run
from vlbeit_jax.tasks.features import EVERY_LAYER
from vlbeit_jax.tasks.runs import read_config
from vlbeit_jax.training.saved_run import finished_step

FROZEN, FINE_TUNED = "emoji_frozen", ("retrieval", "emoji_category")
RESULTS = "ablation.json"


def ablation(
    folder: pathlib.Path, runs: Mapping[str, pathlib.Path], steps: int = 0
) -> dict[str, Any]:
    """Returns ``results`` (each run's score and the gains, by task) and the ``protocol``.

    Args:
      folder: folder of the fine-tuning runs.
      runs: pretraining runs by name, in the order in which they are compared.
      steps: steps of each fine-tuning run; 0 takes the recipe's.

    Raises:
      UsageError: a run is missing or has not finished.
    """
    for run in runs.values():
        finished_step(run, read_config(run).run.steps)  # Raises before hours are spent on others.
    scores: dict[str, dict[str, Scores]] = {task: {} for task in (*FINE_TUNED, FROZEN)}
    protocol: dict[str, Any] = {}
    for name, run in runs.items():
        told = protocol.setdefault(name, _told(run))
        for task in FINE_TUNED:
            study = Study(
                study_of(task),
                run.absolute(),
                (folder / name / task).absolute(),
                steps,
                starts=(PRETRAINED,),
                all_rates=True,  # The settled ones are those of one of the compared runs.
            )
            found, told[task] = answered(study)
            scores[task][name] = study.task.scores(found, PRETRAINED, study.folder)
        scores[FROZEN][name], told[FROZEN] = _frozen(run)
    return {"results": {task: _compared(each) for task, each in scores.items()}} | {
        "protocol": protocol
    }


def _told(run: pathlib.Path) -> dict[str, Any]:
    config = read_config(run)
    return {
        "schedule": config.task.schedule,
        "steps": config.run.steps,
        "warmup_steps": config.optimizer.warmup_steps,
        "seed": config.run.seed,
    }


def _frozen(run: pathlib.Path) -> tuple[Scores, dict[str, Any]]:
    """Returns the probe of ``tools.transfer.frozen`` with all labels."""
    records, labelled = labelled_emoji(open_set(SET))
    opened = open_run(run)
    images = [record["image"] for record in records]
    vectors = Features.of(opened, EVERY_LAYER).images(images)
    outcome = probing.best_ridge(kinds([vectors], opened.model.task.model.width), labelled)
    scores = Scores(
        outcome.right, labelled.groups, "accuracy_by_group", each_group_once=True, seeds=1
    )
    return scores, outcome.told()


def _compared(scores: Mapping[str, Scores]) -> dict[str, Any]:
    """Returns each run's score, and its gains over the run before it and over the first one."""
    names = list(scores)
    pairs = [*pairwise(names), *((names[0], name) for name in names[2:])]
    first = scores[names[0]]
    return {
        "metric": first.metric,
        "scores": {
            name: mean_by_group(each.right, each.groups, each_group_once=each.each_group_once)
            for name, each in scores.items()
        },
        "gains": {
            f"{after} - {before}": paired_gain(
                scores[after].right,
                scores[before].right,
                first.groups,
                each_group_once=first.each_group_once,
            )._asdict()
            for before, after in pairs
        },
        "seeds": first.seeds,
    }


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the results as a Markdown table."""
    first = next(iter(results.values()))
    head = ["task", "metric", *first["scores"], *(f"{each} (95%)" for each in first["gains"])]
    lines = [head, ["---"] * len(head)]
    for task, each in results.items():
        gains = [told_gain(gain) for gain in each["gains"].values()]
        values = [f"{value:.3f}" for value in each["scores"].values()]
        lines.append([task, each["metric"], *values, *gains])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(arguments: list[str]) -> None:
    """Writes ablation.json and prints a table."""
    named = [argument.partition("=") for argument in arguments[1:]]
    runs = {name: pathlib.Path(run) for name, _, run in named}
    if len(runs) < 2 or len(runs) < len(named) or not all(name and run for name, _, run in named):
        raise UsageError(
            "usage: python -m tools.transfer.ablation FOLDER NAME=RUN NAME=RUN..., with at least "
            "two runs and a name of its own for each"
        )
    folder = pathlib.Path(arguments[0])
    found = ablation(folder, runs)
    (folder / RESULTS).write_text(json.dumps(found, indent=1) + "\n")
    print(f"{table(found['results'])}\nwritten to {folder / RESULTS}")


if __name__ == "__main__":
    command.run(main, __doc__)
