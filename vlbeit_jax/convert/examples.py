"""Held-back examples in a file, as the evaluation draws them, so that PyTorch can be scored on the very same ones."""

import pathlib
from collections.abc import Sequence
from contextlib import closing

import numpy as np
from safetensors.numpy import save_file

from vlbeit_jax.data.pipeline import evaluation_batches
from vlbeit_jax.data.source import open_set
from vlbeit_jax.runtime.evaluation import open_run, records_of

EXAMPLES_FILE = "evaluation.safetensors"
LEFT_OUT = {"weight", "uid"}
ROWS = 64


def write_examples(place: pathlib.Path, data: Sequence[str], draws: int, folder: pathlib.Path) -> None:
    """Writes ``STREAM/NAME`` arrays: images once a record, masks and corrupted texts ``draws`` times.

    Args:
      place: the run.
      data: prepared sets; the parts that the run was trained on are left out.
      draws: masks for every record.
      folder: gets ``evaluation.safetensors``.
    """
    run = open_run(place)
    sets = [open_set(name) for name in data]
    arrays = {}
    for stream in run.model.objectives:
        records = records_of(run, sets, stream)
        if not len(records):
            continue
        make = run.model.make_example(stream, False)
        seen: dict[str, list[np.ndarray]] = {}
        with closing(evaluation_batches(records, make, ROWS, run.model.config.run.seed, draws=draws)) as batches:
            for batch in batches:
                for name in batch.keys() - LEFT_OUT:
                    seen.setdefault(name, []).append(batch[name][batch["weight"] > 0])
        arrays |= {f"{stream}/{name}": np.concatenate(parts) for name, parts in seen.items()}
        if stream.has_image:  # The views are the same in every draw.
            arrays[f"{stream}/image"] = arrays[f"{stream}/image"][: len(records)].copy()
    save_file(arrays, folder / EXAMPLES_FILE)
