"""Command: predicts with a fine-tuned run, record by record."""

import json
import pathlib
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from absl import flags

from vlbeit_jax import cli

OVERVIEW = """Predicts with a fine-tuned run: JSON lines in, JSON lines out, on a CPU too.

  python -m vlbeit_jax.predict --from=FT --input=new.jsonl --out=predictions.jsonl --top=5

A line of the input has "image", "images", "text" or "captions", as the run's task needs them, and
"id" if you like (docs/finetune.md). Lines of the output are in the same order, each with its id. If
a line of the input is wrong, its line of the output has an "error" that says why. The command
predicts for all other lines and ends with exit code 1."""

FROM = flags.DEFINE_string("from", None, "workdir of a fine-tuned run", required=True)
INPUT = flags.DEFINE_string("input", None, "JSONL file to read", required=True)
OUT = flags.DEFINE_string("out", "", "file to write; empty: standard output")
TOP = flags.DEFINE_integer("top", 5, "number of the likeliest answers to list", lower_bound=1)
WEIGHTS = flags.DEFINE_enum(
    "weights", "raw", ["raw", "ema"], "the parameters (raw) or their average (ema)"
)
SOME_FAILED = 1  # Exit code.


def main() -> None:
    """Writes a line per line of the input; ends with exit code 1 if one of them is an error."""
    from vlbeit_jax.config.common import MeshConfig
    from vlbeit_jax.errors import UsageError
    from vlbeit_jax.prepare.formats import jsonl
    from vlbeit_jax.prepare.item import filled_lines
    from vlbeit_jax.prepare.requests import prediction_lines
    from vlbeit_jax.progress import counted
    from vlbeit_jax.runtime.finetuned import FineTunedRun
    from vlbeit_jax.tasks.base import FineTuned
    from vlbeit_jax.tasks.runs import read_config
    from vlbeit_jax.training.mesh import make_mesh

    source, folder = pathlib.Path(INPUT.value), pathlib.Path(FROM.value)
    if not source.is_file():
        raise UsageError(f"--input={source}: no such file")
    out = pathlib.Path(OUT.value) if OUT.value else None
    if out:
        cli.require_writable(out)
        if out.resolve() == source.resolve():
            raise UsageError(f"--out={out} is the --input; name another file")
    config = read_config(folder)
    opened = config.task.open(folder)
    if not isinstance(opened, FineTuned):
        raise UsageError(
            f"{folder} holds a run of task {config.task.kind!r}, which predicts nothing for new "
            "records; give a fine-tuned run"
        )
    run = FineTunedRun.open(folder, config, opened, WEIGHTS.value)
    mesh = make_mesh(MeshConfig())
    items = counted(jsonl.read([source]), "predicting", "records", filled_lines([source]))
    lines = prediction_lines(
        items,
        lambda records: run.predict(records, TOP.value, mesh),
        opened.needs,
    )
    failed = _write_file(lines, out) if out else _write(lines, sys.stdout)
    if failed:
        print(f'{failed} records have no prediction; their "error" says why', file=sys.stderr)
        sys.exit(SOME_FAILED)


def _write_file(lines: Iterable[dict[str, Any]], out: pathlib.Path) -> int:
    """Writes a file that appears when all of it is written; returns how many lines are errors."""
    unfinished = out.with_name(f".{out.name}.unfinished")
    try:
        with open(unfinished, "w", encoding="utf-8") as file:
            failed = _write(lines, file)
        unfinished.replace(out)
    finally:
        unfinished.unlink(missing_ok=True)
    return failed


def _write(lines: Iterable[dict[str, Any]], out: TextIO) -> int:
    """Writes lines; returns how many are errors."""
    failed = 0
    for line in lines:
        out.write(json.dumps(line, ensure_ascii=False) + "\n")
        failed += "error" in line
    out.flush()
    return failed


if __name__ == "__main__":
    cli.run(main, OVERVIEW)
