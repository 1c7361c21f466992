"""Prints the largest batch, a power of two, whose train step fits into a device's memory by formula.

Usage: python -m tools.largest_batch CONFIG_FILE[:SIZE] GIBIBYTES
"""

import dataclasses
import importlib.util
import pathlib
import sys
from typing import Any

from vlbeit_jax.config import Config
from vlbeit_jax.config_parse import parse
from vlbeit_jax.cost import memory
from vlbeit_jax.cost.chips import GIB
from vlbeit_jax.tasks.abstract import abstract_step
from vlbeit_jax.training.sharding import make_mesh
from vlbeit_jax.types import Stream

LARGEST = 4096
SPARE = 0.85  # The formula is right within 20%; the rest is the allocator's.


def load(name: str) -> Config:
    """The configuration of a file, on one device with bfloat16 products, image, text and pair together."""
    path, _, size = name.partition(":")
    spec = importlib.util.spec_from_file_location("config", pathlib.Path(path))
    assert spec is not None and spec.loader is not None, path
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    values = (module.get_config(size) if size else module.get_config()).to_dict()
    values["run"]["schedule"] = "image+text+pair"
    values["model"]["matmul"] = values["visual_tokenizer"]["matmul"] = "bfloat16"
    values["mesh"] = {"data": 1, "fsdp": 1, "tensor": 1}
    return parse(values, to_train=False)


def step_bytes(config: Config, batch: int) -> int:
    """Memory of a step with ``batch`` rows of each stream, attention weights not kept."""
    data = {s: dataclasses.replace(getattr(config.data, s), batch_size=batch) for s in Stream}
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, **data))
    _, _, state, frozen, batches = abstract_step(config, make_mesh(config.mesh))
    # As on a TPU: there, too, one kernel computes the attention weights again. But XLA for GPUs works on
    # all streams at once: 18.0 GiB on an H200 at base size and 64 rows, and the compiler of one TPU chip
    # would do with the largest stream's activations.
    activations = [memory.activation_bytes(config, stream, 1, 1, 2, on_tpu=True) for stream in Stream]
    others = sum(activations) - max(activations)
    return memory.estimate(config, state, frozen, batches, 1, 1, on_tpu=True).total + others


def main(name: str, gibibytes: float) -> int:
    """The batch; at least 1."""
    config, batch = load(name), LARGEST
    while batch > 1 and step_bytes(config, batch) > SPARE * gibibytes * GIB:
        batch //= 2
    return batch


if __name__ == "__main__":
    print(main(sys.argv[1], float(sys.argv[2])))
