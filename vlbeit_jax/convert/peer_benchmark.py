"""JAX's train step and PyTorch's, on the same numbers, timed in turn in one process."""

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import torch

from vlbeit_jax.config import Config
from vlbeit_jax.convert.peer_step import TorchStep
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.layers import matmul_dtype
from vlbeit_jax.runtime.speed import circumstances, peak_here, peak_memory, rates, spread
from vlbeit_jax.runtime.synthetic import random_batches, random_state, random_weights
from vlbeit_jax.tasks.abstract import abstract_step
from vlbeit_jax.training.sharding import make_mesh

PEERS = ("torch", "torch-eager", "torch-compiled")
BATCHES = 4  # Different ones, which the steps take in turn.
BLOCKS = (
    10  # Into which the timed steps on an accelerator are cut; it is waited for at the end of each.
)

# Of losses and gradient norm in the first step, relative. float32: both sides sum in other orders. TF32 and bfloat16 keep 11 and
# 8 bits: a rounding error of 2^-9 in each operand of bfloat16, and the two sides round at different places. tests/convert/
# test_peer_benchmark.py has what is found at a small size, and networks with one wrong part that exceed the limit.
LIMITS = {"float32": 1e-4, "tf32": 5e-3, "bfloat16": 1e-2}


@dataclasses.dataclass
class Side:
    """One of the two programs.

    Attributes:
      step: takes the next step with the batch of that number, and returns its metrics, which may not be there yet.
      finish: waits for all steps so far.
      seconds: a step, one number a block.
      cpu_seconds: the same, of all this process's threads.
      metrics: of the first and of the last step.
      first_step_seconds: with compilation.
    """

    step: Callable[[int], Mapping[str, Any]]
    finish: Callable[[], None]
    seconds: list[float] = dataclasses.field(default_factory=list)
    cpu_seconds: list[float] = dataclasses.field(default_factory=list)
    metrics: list[Mapping[str, Any]] = dataclasses.field(default_factory=list)
    first_step_seconds: float = 0.0

    def take(self, numbers: Sequence[int], timed: bool) -> None:
        """Steps one after the other, waited for at the end."""
        began, cpu = time.perf_counter(), time.process_time()
        for number in numbers:
            found = self.step(number)
            self.metrics = [*self.metrics[:1], found]
        self.finish()
        if timed:
            self.seconds.append((time.perf_counter() - began) / len(numbers))
            self.cpu_seconds.append((time.process_time() - cpu) / len(numbers))
        if 0 in numbers:
            self.first_step_seconds = time.perf_counter() - began


def is_compiled(peer: str) -> bool:
    """Whether ``--peer`` means ``torch.compile`` here: "torch" is how one would train, compiled on a GPU and eager on a CPU."""
    return peer == "torch-compiled" or (peer == "torch" and jax.default_backend() != "cpu")


def check_comparable(config: Config) -> None:
    """Raises a ``UsageError`` for what one of the two sides cannot do."""
    found = {
        f"task={config.task} (pretrain alone has a peer)": config.task != "pretrain",
        f"model.drop_path={config.model.drop_path} (the two sides draw differently; --config.model.drop_path=0.0)": config.model.drop_path,
        f"run.accumulate={config.run.accumulate} (--config.run.accumulate=1)": config.run.accumulate
        != 1,
        f"{jax.device_count()} devices (PyTorch's step runs on one)": jax.device_count() != 1,
    }
    if any(found.values()):
        raise UsageError(
            f"--peer=torch cannot be compared with {'; '.join(what for what, is_so in found.items() if is_so)}"
        )


def compare(config: Config, peer: str, steps: int, warmup: int) -> dict[str, Any]:
    """Times both sides in turn and compares losses and gradient norms.

    Both start from the same noisy weights and take the same batches, which lie on the device before a
    step begins. A CPU is waited for after every step; an accelerator after every block, because in
    training neither side waits after a step.

    Args:
      config: of the run.
      peer: one of ``PEERS``.
      steps: that are timed, at least 2.
      warmup: steps before them, at least 1.

    Returns:
      For the report; ``agrees`` says whether the first step's losses and gradient norm are the same on both sides.

    Raises:
      UsageError: see ``check_comparable``; or PyTorch does not see the GPU.
    """
    check_comparable(config)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    step, _, start, shapes, rows = abstract_step(config, make_mesh(config.mesh))
    state, frozen = random_state(start, config.run.seed), random_weights(shapes, config.run.seed)
    batches = [random_batches(config, rows, seed) for seed in range(BATCHES)]
    theirs = TorchStep(config, state.params, frozen, warmup + steps, is_compiled(peer))
    tensors = [{stream: theirs.batch(rows) for stream, rows in each.items()} for each in batches]

    def ours(number: int) -> Mapping[str, jax.Array]:
        nonlocal state
        state, metrics = step(state, frozen, batches[number % BATCHES])
        return metrics

    sides = {
        "jax": Side(ours, lambda: jax.block_until_ready(state)),
        "torch": Side(lambda number: theirs(tensors[number % BATCHES]), theirs.finish),
    }
    blocks = [[number] for number in range(warmup)]
    length = 1 if jax.default_backend() == "cpu" else max(1, steps // BLOCKS)
    blocks += [
        list(range(first, min(first + length, warmup + steps)))
        for first in range(warmup, warmup + steps, length)
    ]
    for turn, numbers in enumerate(blocks):
        for name in list(sides)[:: 1 if turn % 2 else -1]:
            sides[name].take(numbers, timed=turn >= warmup)
    return _report(config, sides, theirs, len(blocks) - warmup, steps)


def _report(
    config: Config, sides: Mapping[str, Side], theirs: TorchStep, blocks: int, steps: int
) -> dict[str, Any]:
    peak, limit = peak_here(), LIMITS[_precision(config)]
    found = circumstances(config, peak)
    found["versions"] |= {"torch": torch.__version__}
    memory = {"jax": peak_memory(), "torch": theirs.peak_memory()}
    for name, side in sides.items():
        found[name] = {
            **rates(config, spread(side.seconds)["median"], peak),
            "peak_memory_bytes": memory[name],
            "first_step_seconds": round(side.first_step_seconds, 2),
        }
    ratios = [
        theirs / ours
        for ours, theirs in zip(sides["jax"].seconds, sides["torch"].seconds, strict=True)
    ]
    first, last = (
        _differences({name: side.metrics[place] for name, side in sides.items()})
        for place in (0, -1)
    )
    return found | {
        "threads": torch.get_num_threads(),
        "peer": theirs.name,
        "steps": steps,
        "blocks": blocks,
        "batches": BATCHES,
        "times_as_fast": spread(ratios),
        "step_seconds": {name: spread(side.seconds) for name, side in sides.items()},
        "cpu_seconds": {name: spread(side.cpu_seconds) for name, side in sides.items()},
        "first_step": first,
        "last_step": last,
        "limit": limit,
        "agrees": all(value["relative"] <= limit for value in first.values()),
    }


def _precision(config: Config) -> str:
    """Of products; on a GPU those in float32 are in TF32, in JAX by default and in PyTorch because we allow it."""
    dtype = matmul_dtype(config.model.matmul).name
    return "tf32" if dtype == "float32" and jax.default_backend() == "gpu" else dtype


def _differences(found: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    both = {}
    for name in sorted(
        name for name in found["torch"] if name == "grad_norm" or name.endswith("/loss")
    ):
        ours, theirs = (float(found[side][name]) for side in ("jax", "torch"))
        both[name] = {
            "jax": ours,
            "torch": theirs,
            "relative": abs(ours - theirs) / max(abs(theirs), 1e-30),
        }
    return both
