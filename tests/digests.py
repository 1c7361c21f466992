"""Whether two environments agree in batches and visual tokens (digests) and in the first losses.

Run it in each environment on one folder, and give the second the first one's output:

    .venv/bin/python -m tests.digests FOLDER >first.json
    .venv-3.13/bin/python -m tests.digests FOLDER --against=first.json

FOLDER holds a pretraining run (``sample_run/pretrain``), whose configuration and tokenizers are
used. If FOLDER does not exist, the small data sets of the tests are made there first. With
--against, the process prints every digest that is not equal and every loss whose relative
difference exceeds 1e-5; if there is any, it exits with code 1.
"""

import argparse
import functools
import hashlib
import json
import math
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from tests import tiny
from vlbeit_jax.data import pipeline
from vlbeit_jax.models.visual_tokenizer import encode
from vlbeit_jax.runtime.versions import versions
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.abstract import step_and_state
from vlbeit_jax.tasks.runs import read_config
from vlbeit_jax.training.mesh import make_mesh, put_batch
from vlbeit_jax.training.saved_run import CONFIG_FILE

BATCHES = 3  # Of every stream.
CLOSE = 1e-5  # Losses of two environments: largest difference, of their size.


def digest(array: Any) -> str:
    """Of an array's type, shape and bytes."""
    array = np.ascontiguousarray(array)
    return hashlib.sha256(f"{array.dtype} {array.shape} ".encode() + array.tobytes()).hexdigest()[
        :16
    ]


def config_in(folder: pathlib.Path) -> Config:
    """The configuration of the run in the folder, with its own tokenizers, or that of the tests."""
    if (folder / CONFIG_FILE).is_file():
        config = read_config(folder)
        own = {
            "text_tokenizer": str(folder / "text_tokenizer"),
            "visual_tokenizer": str(folder / "visual_tokenizer"),
        }
        return tiny.changed(config, task=own)
    world = tiny.world_in(folder) if folder.exists() else tiny.make_world(folder)
    return tiny.pretrain_config(world)


def found(config: Config) -> dict[str, Any]:
    """Digests of each stream's first batches and visual tokens, and losses of the first step."""
    task, mesh = config.task.resolve(), make_mesh(config.mesh)
    opened = task.open()
    data = opened.training_data(config.run)
    digests: dict[str, str] = {}
    first = {}
    tokens = jax.jit(functools.partial(encode, opened.visual.tokenizer))
    for name, stream in task.streams().items():
        batches = pipeline.batches(data.examples(name), stream.batch_size)
        for index in range(BATCHES):
            batch = next(batches)
            first.setdefault(name, batch)
            digests |= {
                f"batch {index} of {name}: {key}": digest(array)
                for key, array in sorted(batch.items())
            }
            if "image" in batch:
                codes = tokens(opened.tokenizer_params, batch["image"])
                digests[f"batch {index} of {name}: visual tokens"] = digest(codes)
        batches.close()
    step, (make_state, _) = step_and_state(task, config, mesh)
    rows = {name: put_batch(batch, mesh) for name, batch in first.items()}
    _, metrics = step(make_state(config.run.seed), opened.frozen, rows)
    losses = {
        name: float(value)
        for name, value in jax.device_get(metrics).items()
        if name.endswith("/loss")
    }
    return {
        "python": sys.version.split()[0],
        "versions": versions(),
        "digests": digests,
        "losses": losses,
    }


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Digests and losses in which two environments differ: each name with both values."""
    wrong = []
    for part in ("digests", "losses"):
        for name in sorted(one[part].keys() | other[part].keys()):
            here, there = one[part].get(name), other[part].get(name)
            near = (
                part == "losses"
                and None not in (here, there)
                and math.isclose(here, there, rel_tol=CLOSE)
            )
            if here != there and not near:
                wrong.append(f"{name}: {here} and {there}")
    return wrong


def main() -> int:
    """Prints the findings as JSON and compares them if asked to; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--against", type=pathlib.Path, help="what another environment printed")
    options = parser.parse_args()
    here = found(config_in(options.folder))
    print(json.dumps(here, indent=1))
    if options.against is None:
        return 0
    there = json.loads(options.against.read_text())
    wrong = differences(there, here)
    apart = max(
        abs(here["losses"][name] / there["losses"][name] - 1)
        for name in here["losses"].keys() & there["losses"].keys()
    )
    print(
        "\n".join(wrong)
        or f"{len(here['digests'])} digests are equal; losses are within {apart:.1e} of their size",
        file=sys.stderr,
    )
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
