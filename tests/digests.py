"""Whether two environments train on the same thing: digests of batches and visual tokens, and the losses of the first step.

Run it in each environment on one folder, and give the second the first one's output:

    .venv/bin/python -m tests.digests FOLDER >first.json
    .venv-3.13/bin/python -m tests.digests FOLDER --against=first.json

FOLDER holds a pretraining run (``sample_run/pretrain``), whose configuration and tokenizers are taken; or it does not exist, and a
world of the tests' size is made there first. With --against, the process ends with code 1 and the names of what differs: digests
that are not equal, losses more than 1e-5 of their size apart.
"""

import argparse
import dataclasses
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
from vlbeit_jax.config import Config
from vlbeit_jax.data.shard import HostShard
from vlbeit_jax.models.visual_tokenizer import encode
from vlbeit_jax.runtime.versions import versions
from vlbeit_jax.tasks.pretrain import Pretrain
from vlbeit_jax.training.optimizer import make_optimizer
from vlbeit_jax.training.saved_run import CONFIG_FILE, read_config
from vlbeit_jax.training.sharding import make_mesh, put_batch, shardings
from vlbeit_jax.training.state import declarations, state_maker
from vlbeit_jax.training.step import make_train_step

BATCHES = 3  # Of every stream.
CLOSE = 1e-5  # Losses of two environments: largest difference, of their size.


def digest(array: Any) -> str:
    """Of an array's type, shape and bytes."""
    array = np.ascontiguousarray(array)
    return hashlib.sha256(f"{array.dtype} {array.shape} ".encode() + array.tobytes()).hexdigest()[
        :16
    ]


def config_in(folder: pathlib.Path) -> Config:
    """The configuration of the run there with its own tokenizers, or that of a world of the tests."""
    if (folder / CONFIG_FILE).is_file():
        config = read_config(folder)
        own = {
            "text_tokenizer": str(folder / "text_tokenizer"),
            "visual_tokenizer": str(folder / "visual_tokenizer"),
        }
        return dataclasses.replace(config, data=dataclasses.replace(config.data, **own))
    world = tiny.world_in(folder) if folder.exists() else tiny.make_world(folder)
    return tiny.pretrain_config(world)


def found(config: Config) -> dict[str, Any]:
    """Digests of the first batches and of the visual tokens of their images, and the losses of one step on each stream's first."""
    task, mesh, shard = Pretrain(config), make_mesh(config.mesh), HostShard()
    digests: dict[str, str] = {}
    first = {}
    tokens = jax.jit(lambda frozen, image: encode(task.model.visual.tokenizer, frozen, image))
    for stream in task.streams:
        batches = task.training_batches(stream, 0, shard)
        for index in range(BATCHES):
            batch = next(batches)
            first.setdefault(stream, batch)
            digests |= {
                f"batch {index} of {stream}: {name}": digest(array)
                for name, array in sorted(batch.items())
            }
            if stream.has_image:
                digests[f"batch {index} of {stream}: visual tokens"] = digest(
                    tokens(task.model.frozen, batch["image"])
                )
        batches.close()
    info = declarations(task.init_params).info
    optimizer = make_optimizer(config.optimizer, config.run.steps, info)
    make_state, abstract = state_maker(
        task.init_params,
        lambda: {n: o.init_model_state() for n, o in task.objectives.items()},
        optimizer,
        mesh,
    )
    step = make_train_step(
        task.objectives,
        optimizer,
        info,
        shardings(abstract.params),
        mesh,
        seed=config.run.seed,
        accumulate=config.run.accumulate,
    )
    _, metrics = step(
        make_state(config.run.seed),
        task.frozen,
        {stream: put_batch(batch, mesh) for stream, batch in first.items()},
    )
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
    """Names of what two environments do not have in common, apart from versions, with both values."""
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
    """The command: prints what was found as JSON, and compares it if asked to; returns the exit code."""
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
