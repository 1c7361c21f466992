"""Writes held-out examples to a file, so that PyTorch can be scored on the very same ones."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from vlbeit_jax.config.common import MeshConfig
from vlbeit_jax.convert.files import write_safetensors
from vlbeit_jax.data.pipeline import batches
from vlbeit_jax.data.sampling import EvaluationExamples
from vlbeit_jax.data.source import open_sets_once
from vlbeit_jax.runtime.pretrained import evaluate, open_run, records_by_stream
from vlbeit_jax.training.mesh import make_mesh

EXAMPLES_FILE, FIGURES_FILE = "evaluation.safetensors", "evaluation.json"
LEFT_OUT = {"weight", "uid"}
ROWS = 64


def write_examples(
    run_folder: pathlib.Path, data: Sequence[str], draws: int, folder: pathlib.Path, step: int = 0
) -> None:
    """Writes STREAM/NAME arrays: images once per record, masks and masked texts ``draws`` times.

    Args:
      run_folder: workdir of the run.
      data: prepared sets; records that the run was trained on are left out.
      draws: masks per record.
      folder: where ``evaluation.safetensors`` is written.
      step: of the run; 0: the newest one that is not damaged.

    Raises:
      UsageError: a data set is missing, or holds nothing that the run's streams can use.
    """
    run = open_run(run_folder, step)
    seed = run.config.run.seed
    arrays = {}
    for stream, records in records_by_stream(run, data, open_sets_once(data)).items():
        make = run.model.make_example(stream, False)
        parts: dict[str, list[np.ndarray]] = {}
        count = 0
        examples = EvaluationExamples(records, make, ROWS, seed=seed, repeats=draws)
        with closing(batches(examples, ROWS)) as feed:
            for batch in feed:
                valid = np.flatnonzero(batch["weight"] > 0)
                # Every draw has the same view of an image, so only the first draw's are written.
                first_draw = valid[: max(0, len(records) - count)]
                count += len(valid)
                for name in [name for name in batch if name not in LEFT_OUT]:
                    rows = first_draw if name == "image" else valid
                    parts.setdefault(name, []).append(batch[name][rows])
        arrays |= {f"{stream}/{name}": np.concatenate(values) for name, values in parts.items()}
    write_safetensors(folder / EXAMPLES_FILE, arrays, {"format": "pt"})


def write_evaluation(
    run_folder: pathlib.Path, data: Sequence[str], draws: int, folder: pathlib.Path, step: int = 0
) -> None:
    """Evaluates a run as ``vlbeit_jax.evaluate`` does; writes ``evaluation.json`` and examples.

    Arguments and errors are those of ``write_examples``.
    """
    write_examples(run_folder, data, draws, folder, step)
    results = evaluate(open_run(run_folder, step), data, make_mesh(MeshConfig()), draws)
    text = json.dumps(without_folders(results), indent=1, ensure_ascii=False)
    (folder / FIGURES_FILE).write_text(text + "\n", encoding="utf-8")


def without_folders(results: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an evaluation's results with the names of sets alone: exports are published."""
    data = [each | {"folder": pathlib.Path(each["folder"]).name} for each in results["data"]]
    named = {**results, "data": data}
    if start := results.get("start"):
        named["start"] = start | {"from": pathlib.Path(start["from"]).name}
    return named
