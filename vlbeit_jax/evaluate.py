"""Command: evaluates a run on prepared data."""

import dataclasses
import json
import pathlib
from typing import Any

from absl import flags

from vlbeit_jax import cli
from vlbeit_jax.errors import UsageError
from vlbeit_jax.folders import run_folder
from vlbeit_jax.places import appearing, place, require_writable

OVERVIEW = """Evaluates a run on data that it was not trained on.

  python -m vlbeit_jax.evaluate --from=RUN --data=data/cc3m --data=data/wiki --json=results.json
  python -m vlbeit_jax.evaluate --from=RUN --data=data/pairs --json=RUN/results.json --report=RUN
  python -m vlbeit_jax.evaluate --from=RUN --data=data/new --split=validation --json=before.json
  python -m vlbeit_jax.evaluate --from=FT --data=data/birds --split=test --json=results.json

For a pretraining run, the command gives each term's masked accuracy beside chance and the unigram
baseline, and the cross-modal gain with its 95% interval. It scores the held-out part of a data set
that the run was trained on, and the whole of any other. With --split=validation it scores the
held-out part of all, so that the run can be compared with one that was trained on them. The
cross-modal gain is the masked accuracy of pairs with their own partner minus that with a wrong
partner, over the same masks.

For a fine-tuned run, the command gives the metrics of the run's task. The file also has the whole
protocol. With --classes, a run of retrieval classifies labelled images by the names of their
classes, which it was not trained for (zero-shot):

  python -m vlbeit_jax.evaluate --from=FT --data=data/birds --classes=names.txt --json=zero.json"""

FROM = flags.DEFINE_string("from", None, "workdir of a run, or sample", required=True)
DATA = flags.DEFINE_multi_string("data", None, "prepared data set; may be repeated", required=True)
JSON = flags.DEFINE_string("json", None, "file to write", required=True)
DRAWS = flags.DEFINE_integer(
    "draws", 4, "pretraining runs: masks drawn for each record", lower_bound=1
)
SPLIT = flags.DEFINE_enum(
    "split",
    "",
    ["", "train", "validation", "test"],
    "fine-tuned runs: part of the data; empty: test if there is one, otherwise validation. "
    "Pretraining runs: validation for the held-out part of all data sets; otherwise empty",
)
REPORT = flags.DEFINE_string(
    "report", "", "folder for the report, as vlbeit_jax.report writes it; empty: none"
)
WEIGHTS = flags.DEFINE_enum(
    "weights", "raw", ["raw", "ema"], "fine-tuned runs: the parameters (raw) or their average (ema)"
)
STEP = flags.DEFINE_integer(
    "step", 0, "checkpoint to read, and no other; 0: the newest one that is not damaged", 0
)
CLASSES = flags.DEFINE_string(
    "classes",
    "",
    "retrieval runs: file with a name for each class of the data, one a line, in the order of the "
    "set's classes: evaluates zero-shot classification",
)
TEMPLATES = flags.DEFINE_string(
    "templates",
    "",
    "with --classes: file with one text a line, in which {} stands for the name of the class; "
    "empty: the name alone",
)


def main() -> None:
    """Evaluates, prints a table and writes the file."""
    from vlbeit_jax.config.common import MeshConfig
    from vlbeit_jax.data.class_names import read_class_texts
    from vlbeit_jax.runtime.finetuned import FineTunedRun
    from vlbeit_jax.runtime.pretrained import evaluate, open_run
    from vlbeit_jax.tasks.base import FineTuned
    from vlbeit_jax.tasks.runs import read_config
    from vlbeit_jax.training.mesh import make_mesh

    folder, out = run_folder(FROM.value), place(JSON.value, "--json")
    require_writable(out)
    if REPORT.value:
        place(REPORT.value, "--report")
    mesh, config = make_mesh(MeshConfig()), read_config(folder)
    opened = config.task.open(folder)
    is_fine_tuned = isinstance(opened, FineTuned)
    _refuse_flags_of_others(is_fine_tuned)
    if is_fine_tuned:
        run = FineTunedRun.open(folder, config, opened, WEIGHTS.value, STEP.value)
        classes = read_class_texts(CLASSES.value, TEMPLATES.value)
        results = run.evaluate(DATA.value, SPLIT.value, mesh, classes)
        _print_figures(results)
    else:
        run = dataclasses.replace(open_run(folder, STEP.value), held_out_only=bool(SPLIT.value))
        results = evaluate(run, DATA.value, mesh, DRAWS.value)
        _print_terms(results)
    with appearing(out) as file:
        file.write(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    print(f"written to {out}")
    if REPORT.value:
        print(_write_report(folder, json.loads(out.read_text())))


def _write_report(folder: pathlib.Path, results: dict[str, Any]) -> pathlib.Path:
    """Writes the report of the run on the data that it was evaluated on."""
    from vlbeit_jax.report.page import write_report

    out = place(REPORT.value, "--report")
    out.mkdir(parents=True, exist_ok=True)
    return write_report(folder, DATA.value, results, out)


def _refuse_flags_of_others(is_fine_tuned: bool) -> None:
    names, kind = ("draws",), "pretraining"
    if not is_fine_tuned:
        names, kind = ("weights", "classes", "templates"), "fine-tuned"
    for name in names:
        if flags.FLAGS[name].present:
            raise UsageError(f"--{name} is for a {kind} run; leave it out")
    if not is_fine_tuned and SPLIT.value not in ("", "validation"):
        raise UsageError(
            f"--split={SPLIT.value} is for a fine-tuned run; of a pretraining run, give "
            "--split=validation, or leave it out"
        )


def _print_figures(results: dict[str, Any]) -> None:
    protocol = results["protocol"]
    print(f"{protocol['task']}, {protocol['split']}, {protocol['weights']} weights")
    width = max(map(len, results["metrics"]))
    for name, value in results["metrics"].items():
        values = value if isinstance(value, (list, tuple)) else [value]
        print(f"{name:{width}s} {' to '.join(f'{each:.6g}' for each in values)}")


def _print_terms(results: dict[str, Any]) -> None:
    for name, figures in results.items():
        if isinstance(figures, dict) and "accuracy" in figures:
            print(
                f"{name:10s} accuracy {figures['accuracy']:7.2%}  "
                f"unigram {figures['unigram']:7.2%}  chance {figures['chance']:7.3%}  "
                f"loss {figures['loss']:.3f}  over {figures['count']} masked positions"
            )
        elif isinstance(figures, dict):
            print(
                f"{name:10s} {figures['value']:+.2%}  "
                f"95% interval {figures['low']:+.2%} to {figures['high']:+.2%}"
            )


if __name__ == "__main__":
    cli.run(main, OVERVIEW)
