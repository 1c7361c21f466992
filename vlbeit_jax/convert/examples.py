"""Held-back examples in a file, as the evaluation draws them, so that PyTorch can be scored on the very same ones."""

import pathlib
from collections.abc import Sequence
from contextlib import closing

import numpy as np

from vlbeit_jax.convert.files import write_safetensors
from vlbeit_jax.convert.rules import Written
from vlbeit_jax.data.pipeline import batches
from vlbeit_jax.data.sampling import EvaluationExamples
from vlbeit_jax.data.source import open_set
from vlbeit_jax.runtime.evaluation import open_run, records_by_stream

EXAMPLES_FILE = "evaluation.safetensors"
LEFT_OUT = {"weight", "uid"}
ROWS = 64


def write_examples(
    place: pathlib.Path, data: Sequence[str], draws: int, folder: pathlib.Path
) -> None:
    """Writes ``STREAM/NAME`` arrays: images once a record, masks and corrupted texts ``draws`` times.

    Args:
      place: the run.
      data: prepared sets; the parts that the run was trained on are left out.
      draws: masks for every record.
      folder: gets ``evaluation.safetensors``.

    Raises:
      UsageError: a data set is missing, or holds nothing that the run's streams can use.
    """
    run = open_run(place)
    arrays = {}
    for stream, records in records_by_stream(run, data, [open_set(name) for name in data]).items():
        make = run.model.make_example(stream, False)
        seen: dict[str, list[np.ndarray]] = {}
        count = 0
        seed = run.model.config.run.seed
        examples = EvaluationExamples(records, make, ROWS, seed=seed, repeats=draws)
        with closing(batches(examples, ROWS)) as found:
            for batch in found:
                real = np.flatnonzero(batch["weight"] > 0)
                first = real[
                    : max(0, len(records) - count)
                ]  # The views are the same in every draw: the first one's are kept.
                count += len(real)
                for name in batch.keys() - LEFT_OUT:
                    seen.setdefault(name, []).append(
                        batch[name][first if name == "image" else real]
                    )
        arrays |= {f"{stream}/{name}": np.concatenate(parts) for name, parts in seen.items()}
    tensors = [
        Written(name, value.shape, value.dtype, lambda value=value: value)
        for name, value in arrays.items()
    ]
    write_safetensors(folder / EXAMPLES_FILE, tensors, {"format": "pt"})
