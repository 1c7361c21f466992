"""Command: predicts with a fine-tuned run, record by record."""

import contextlib
import functools
import json
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

from absl import flags

from vlbeit_jax import cli
from vlbeit_jax.folders import run_folder
from vlbeit_jax.places import appearing, place, require_writable

OVERVIEW = """Predicts with a fine-tuned run: JSON lines in, JSON lines out, on a CPU too.

  python -m vlbeit_jax.predict --from=FT --input=new.jsonl --out=predictions.jsonl --top=5
  python -m vlbeit_jax.predict --from=FT --input=new.jsonl --out=masks.jsonl --pictures=masks
  python -m vlbeit_jax.predict --from=FT --input=new.jsonl --classes=names.txt --out=labels.jsonl
  python -m vlbeit_jax.predict --from=FT --format=vqav2 --input=VQAv2 --split=test \\
      --out=submission.json

A line of the input has "image", "images", "text" or "captions", as the run's task needs them, and
"id" if you like (docs/finetune.md). Lines of the output are in the same order, each with its id. If
a line of the input is wrong, its line of the output has an "error" that says why. The command
predicts for all other lines and ends with exit code 65.

A run of segmentation writes two pictures for each line: the mask, an indexed PNG, and the picture
under the colours of its classes. They are in --pictures, and the line has their paths.

With --classes, a run of retrieval gives each image the class whose name fits it best (zero-shot).

With --format=vqav2, the input is the folder of VQA v2's official files, and the output is what its
evaluation server takes: a JSON list with question_id and answer (docs/published_benchmarks.md)."""

FROM = flags.DEFINE_string("from", None, "workdir of a fine-tuned run", required=True)
INPUT = flags.DEFINE_string(
    "input", None, "JSONL file to read; with another --format: folder", required=True
)
OUT = flags.DEFINE_string("out", "", "file to write; empty: standard output")
JSONL = "jsonl"
FORMAT = flags.DEFINE_enum(
    "format", JSONL, [JSONL, "vqav2"], "jsonl, or the benchmark whose submission file is written"
)
SPLIT = flags.DEFINE_string(
    "split", "", "with --format=vqav2: test (the default), test-dev, validation or train"
)
TOP = flags.DEFINE_integer("top", 5, "number of the likeliest answers to list", lower_bound=1)
CLASSES = flags.DEFINE_string(
    "classes", "", "retrieval runs: file with the names of classes, one a line"
)
TEMPLATES = flags.DEFINE_string(
    "templates",
    "",
    "with --classes: file with one text a line, in which {} stands for the name of the class; "
    "empty: the name alone",
)
PICTURES = flags.DEFINE_string(
    "pictures",
    "",
    "segmentation runs: folder to make, for masks and overlays; empty: --out without its ending",
)
WEIGHTS = flags.DEFINE_enum(
    "weights", "raw", ["raw", "ema"], "the parameters (raw) or their average (ema)"
)
STEP = flags.DEFINE_integer(
    "step", 0, "checkpoint to read, and no other; 0: the newest one that is not damaged", 0
)
MOST_NAMED = 20
# Loader processes start for each part of a submission. So many pictures of COCO take 0.7 GB.
AT_ONCE = 4096


def main() -> None:
    """Writes a prediction for each record; ends with ``Exit.BAD_DATA`` if one is an error."""
    from vlbeit_jax.errors import Exit, UsageError
    from vlbeit_jax.runtime.finetuned import FineTunedRun
    from vlbeit_jax.tasks.base import FineTuned
    from vlbeit_jax.tasks.runs import read_config

    source, folder = place(INPUT.value, "--input"), run_folder(FROM.value)
    out = place(OUT.value, "--out") if OUT.value else None
    is_list = FORMAT.value != JSONL
    if not (source.is_dir() if is_list else source.is_file()):
        raise UsageError(f"--input={source}: no such {'folder' if is_list else 'file'}")
    if SPLIT.value and not is_list:
        raise UsageError("--split is for the folder of a benchmark; give its --format, or leave it")
    if out:
        require_writable(out)
        if out.resolve() == source.resolve():
            raise UsageError(f"--out={out} is the --input; name another file")
    config = read_config(folder)
    opened = config.task.open(folder)
    if not isinstance(opened, FineTuned):
        raise UsageError(
            f"{folder} holds a run of task {config.task.kind!r}, which predicts nothing for new "
            "records; give a fine-tuned run"
        )
    run = FineTunedRun.open(folder, config, opened, WEIGHTS.value, STEP.value)
    with contextlib.ExitStack() as until_written:
        if is_list:
            write = _write_submission(run, source)
        else:
            write = functools.partial(_write, _lines_of_file(run, source, until_written))
        failed = _write_file(write, out) if out else write(sys.stdout)
    if failed:
        where = "the answer is empty" if is_list else 'its "error" says why'
        print(f"{failed} records have no prediction; of each, {where}", file=sys.stderr)
        sys.exit(Exit.BAD_DATA)


def _lines_of_file(
    run: Any, source: pathlib.Path, until_written: contextlib.ExitStack
) -> Iterator[dict[str, Any]]:
    """Yields a line for each line of a JSONL file; what it opens closes when all is written."""
    from vlbeit_jax.config.common import MeshConfig
    from vlbeit_jax.data.class_names import read_class_texts
    from vlbeit_jax.prepare.formats import jsonl
    from vlbeit_jax.prepare.item import filled_lines
    from vlbeit_jax.prepare.requests import prediction_lines
    from vlbeit_jax.progress import counted
    from vlbeit_jax.training.mesh import make_mesh

    mesh = make_mesh(MeshConfig())
    classes = read_class_texts(CLASSES.value, TEMPLATES.value)
    items = counted(jsonl.read_lines([source]), "predicting", "records", filled_lines([source]))
    if classes:
        classify = run.classifier(classes, TOP.value, mesh)
        return prediction_lines(items, classify, {"image"})
    predict = _with_pictures(
        run, lambda records: run.predict(records, TOP.value, mesh), until_written
    )
    return prediction_lines(items, predict, run.opened.needs)


def _with_pictures(run: Any, predict: Any, until_written: contextlib.ExitStack) -> Any:
    """Returns ``predict``; of a run whose predictions are pictures, with their files."""
    from vlbeit_jax.errors import UsageError
    from vlbeit_jax.runtime.drawn import drawn
    from vlbeit_jax.tasks.drawing import DrawsPictures

    if not isinstance(run.opened, DrawsPictures):
        if PICTURES.value:
            raise UsageError("--pictures is for a run of segmentation; leave it out")
        return predict
    out = place(OUT.value)
    if not OUT.value and not PICTURES.value:
        raise UsageError(
            "give --out=FILE or --pictures=FOLDER: the masks are written into a folder"
        )
    folder = place(PICTURES.value, "--pictures") if PICTURES.value else out.with_suffix("")
    if folder == out:
        raise UsageError(f"--out={out} has no ending, so name --pictures=FOLDER as well")
    return until_written.enter_context(drawn(predict, run.opened, folder, out.parent))


def _write_submission(run: Any, source: pathlib.Path) -> Callable[[IO[str]], int]:
    """Returns what writes the file of a benchmark's server, and returns how many answers failed."""
    from vlbeit_jax.config.common import MeshConfig
    from vlbeit_jax.errors import UsageError
    from vlbeit_jax.prepare.requests import LIMITS, prediction_lines
    from vlbeit_jax.prepare.submissions import SUBMISSIONS, write_list
    from vlbeit_jax.progress import counted
    from vlbeit_jax.training.mesh import make_mesh

    form, mesh = SUBMISSIONS[FORMAT.value], make_mesh(MeshConfig())
    part = SPLIT.value or next(iter(form.parts))
    if part not in form.parts:
        raise UsageError(f"--split={part}: --format={FORMAT.value} has {', '.join(form.parts)}")
    if run.opened.kind is not form.kind or CLASSES.value:
        raise UsageError(
            f"--format={FORMAT.value} needs a run that was trained on {form.kind}, and no --classes"
        )
    total = form.count(source, part)
    items = counted(form.read(source, part), "predicting", "records", total)
    lines = prediction_lines(
        items,
        lambda records: run.predict(records, 1, mesh),
        run.opened.needs,
        AT_ONCE,
        LIMITS.of_benchmark(),
    )

    def write(out: IO[str]) -> int:
        errors = write_list(lines, form.entry, out)
        for error in errors[:MOST_NAMED]:
            print(error, file=sys.stderr)
        return len(errors)

    return write


def _write_file(write: Callable[[IO[str]], int], out: pathlib.Path) -> int:
    """Writes a file that appears when all of it is written; returns how many lines are errors."""
    with appearing(out) as file:
        return write(file)


def _write(lines: Iterable[dict[str, Any]], out: IO[str]) -> int:
    """Writes lines; returns how many are errors."""
    failed = 0
    for line in lines:
        out.write(json.dumps(line, ensure_ascii=False) + "\n")
        failed += "error" in line
    out.flush()
    return failed


if __name__ == "__main__":
    cli.run(main, OVERVIEW)
