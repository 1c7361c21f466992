"""Prints the largest batch size, a power of two, that fits into a device's memory by formula.

Usage: python -m tools.largest_batch CONFIG_FILE[:SIZE] GIBIBYTES
"""

import dataclasses
import importlib.util
import pathlib
import sys
from typing import Any

from vlbeit_jax.cost.peaks import GIB
from vlbeit_jax.plan import memory
from vlbeit_jax.tasks import Config, parse
from vlbeit_jax.tasks.abstract import abstract_step
from vlbeit_jax.training.mesh import make_mesh
from vlbeit_jax.training.state import declarations

LARGEST = 4096
SPARE = 0.85  # The formula is right within 20%; the allocator needs the rest.


def load(name: str) -> Config:
    """Reads a configuration; sets one device, bfloat16 products, and all streams in each step."""
    path, _, size = name.partition(":")
    spec = importlib.util.spec_from_file_location("config", pathlib.Path(path))
    assert spec is not None and spec.loader is not None, path
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    values = (module.get_config(size) if size else module.get_config()).to_dict()
    values["task"]["schedule"] = "image+text+pair"
    task = values["task"]
    task["model"]["matmul"] = task["tokenizer_model"]["matmul"] = "bfloat16"
    values["mesh"] = {"data": 1, "fsdp": 1, "tensor": 1}
    return parse(values, to_train=False)


def step_bytes(config: Config, batch: int) -> int:
    """Memory of a step with ``batch`` rows of each stream and recomputed attention weights."""
    streams = {
        name: dataclasses.replace(getattr(config.task, name), batch_size=batch)
        for name in config.task.used_streams
    }
    task = dataclasses.replace(config.task, **streams)
    config = dataclasses.replace(config, task=task)
    _, _, state, frozen, batches = abstract_step(config, make_mesh(config.mesh))
    objectives = {name: stream.objective for name, stream in task.streams().items()}
    info = declarations(task.init).info
    # on_tpu: cuDNN's kernel, too, computes the attention weights again in the backward pass. And on
    # both devices a step holds the activations of one stream at a time (``training.step``).
    needed = memory.estimate(
        objectives, state, info, frozen, batches, config.run.accumulate, 1, 1, on_tpu=True
    )
    return needed.total


def main(name: str, gibibytes: float) -> int:
    """Returns the batch size, at least 1."""
    config, batch = load(name), LARGEST
    while batch > 1 and step_bytes(config, batch) > SPARE * gibibytes * GIB:
        batch //= 2
    return batch


if __name__ == "__main__":
    print(main(sys.argv[1], float(sys.argv[2])))
