"""Times JAX's and PyTorch's train steps in turn, in one process and on the same batches."""

import dataclasses
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import torch

from tools.torch_peer.peer import peer_of
from tools.torch_peer.train_step import TorchStep
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.layers import matmul_dtype
from vlbeit_jax.runtime.speed import circumstances, peak_here, peak_memory, rates, spread
from vlbeit_jax.runtime.synthetic import random_batches, random_state, random_weights
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.abstract import abstract_step
from vlbeit_jax.training.mesh import make_mesh

BATCHES = 4  # Different batches; the steps take them in turn.
BLOCKS = 10  # Blocks of timed steps on an accelerator. The host waits for it after each block.

# Largest allowed relative difference of a loss and of the gradient norm in the first step. In
# float32 the two sides sum in different orders. TF32 keeps 11 bits and bfloat16 keeps 8, so each
# operand of a bfloat16 product has a rounding error of 2^-9, and the two sides round at different
# places. tests/test_torch_peer.py has networks with one wrong part, which exceed these limits.
LIMITS = {"float32": 1e-4, "tf32": 5e-3, "bfloat16": 1e-2}


@dataclasses.dataclass
class Side:
    """One of the two programs and its measurements.

    Attributes:
      step: takes the number of a step and takes the step. It may return metrics that the device
        has not computed yet.
      finish: waits for all steps.
      seconds: wall time per step, one value per block.
      cpu_seconds: CPU time per step of all threads, one value per block.
      metrics: metrics of the first and of the last step.
      first_step_seconds: duration of the first step, compilation included.
    """

    step: Callable[[int], Mapping[str, Any]]
    finish: Callable[[], None]
    seconds: list[float] = dataclasses.field(default_factory=list)
    cpu_seconds: list[float] = dataclasses.field(default_factory=list)
    metrics: list[Mapping[str, Any]] = dataclasses.field(default_factory=list)
    first_step_seconds: float = 0.0

    def take(self, numbers: Sequence[int], timed: bool) -> None:
        """Takes a block of steps and waits for the last one."""
        began, cpu = time.perf_counter(), time.process_time()
        for number in numbers:
            metrics = self.step(number)
            self.metrics = [*self.metrics[:1], metrics]
        self.finish()
        if timed:
            self.seconds.append((time.perf_counter() - began) / len(numbers))
            self.cpu_seconds.append((time.process_time() - cpu) / len(numbers))
        if 0 in numbers:
            self.first_step_seconds = time.perf_counter() - began


def is_compiled(peer: str) -> bool:
    """Whether ``peer`` runs under ``torch.compile`` on this machine."""
    return peer == "torch-compiled" or (peer == "torch" and jax.default_backend() != "cpu")


def check_comparable(config: Config) -> None:
    """Raises a ``UsageError`` that lists the settings under which the two sides would differ."""
    problems = {
        f"task.model.drop_path={config.task.model.drop_path} (the two sides draw different random "
        "numbers; set --config.task.model.drop_path=0.0)": config.task.model.drop_path != 0,
        f"run.accumulate={config.run.accumulate} (set --config.run.accumulate=1)": (
            config.run.accumulate != 1
        ),
        f"{jax.device_count()} devices (PyTorch's step runs on one)": jax.device_count() != 1,
    }
    found = [problem for problem, is_present in problems.items() if is_present]
    found += peer_of(config).differences(config)
    if found:
        named = "; ".join(found)
        raise UsageError(f"the step cannot be compared with PyTorch's: {named}")


def compare(config: Config, peer: str, steps: int, warmup: int) -> dict[str, Any]:
    """Times both sides in turn and compares losses and gradient norms.

    Both sides start from the same noisy weights. Batches are on the device before a step begins. On
    a CPU, the host waits after every step. On an accelerator, it waits after every block, because
    in training neither side waits after a step.

    Args:
      config: configuration of the run.
      peer: "torch", "torch-eager" or "torch-compiled".
      steps: number of timed steps, at least 2.
      warmup: number of untimed steps before them, at least 1.

    Returns:
      The report. ``agrees`` says whether the losses and the gradient norm of the first step differ
      by at most the limit.

    Raises:
      UsageError: one side cannot run the configuration, or PyTorch does not see the GPU.
    """
    check_comparable(config)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    step, _, start, shapes, rows = abstract_step(config, make_mesh(config.mesh))
    state, frozen = random_state(start, config.run.seed), random_weights(shapes, config.run.seed)
    batches = [random_batches(config, rows, seed) for seed in range(BATCHES)]
    torch_step = TorchStep(config, state.params, frozen, warmup + steps, is_compiled(peer))
    tensors = [
        {stream: torch_step.batch(arrays) for stream, arrays in batch.items()} for batch in batches
    ]

    def jax_step(number: int) -> Mapping[str, jax.Array]:
        nonlocal state
        state, metrics = step(state, frozen, batches[number % BATCHES])
        return metrics

    sides = {
        "jax": Side(jax_step, lambda: jax.block_until_ready(state)),
        "torch": Side(lambda number: torch_step(tensors[number % BATCHES]), torch_step.finish),
    }
    blocks = _blocks(steps, warmup)
    for turn, numbers in enumerate(blocks):
        # The sides swap places every turn, so that neither always runs on a warmer machine.
        order = ("jax", "torch") if turn % 2 else ("torch", "jax")
        for name in order:
            sides[name].take(numbers, timed=turn >= warmup)
    return _report(config, sides, torch_step, len(blocks) - warmup, steps)


def _blocks(steps: int, warmup: int) -> list[list[int]]:
    """Returns step numbers by block: each warm-up step is a block, then the timed steps follow."""
    length = 1 if jax.default_backend() == "cpu" else max(1, steps // BLOCKS)
    last = warmup + steps
    timed = [list(range(first, min(first + length, last))) for first in range(warmup, last, length)]
    return [[number] for number in range(warmup)] + timed


def _report(
    config: Config, sides: Mapping[str, Side], torch_step: TorchStep, blocks: int, steps: int
) -> dict[str, Any]:
    peak, limit = peak_here(), LIMITS[_precision(config)]
    report = circumstances(config, peak)
    report["versions"] |= {"torch": torch.__version__}
    memory = {"jax": peak_memory(), "torch": torch_step.peak_memory()}
    for name, side in sides.items():
        report[name] = {
            **rates(config, spread(side.seconds)["median"], peak),
            "peak_memory_bytes": memory[name],
            "first_step_seconds": round(side.first_step_seconds, 2),
        }
    pairs = zip(sides["jax"].seconds, sides["torch"].seconds, strict=True)
    first, last = (
        _differences(sides["jax"].metrics[place], sides["torch"].metrics[place])
        for place in (0, -1)
    )
    return report | {
        "threads": torch.get_num_threads(),
        "peer": torch_step.name,
        "steps": steps,
        "blocks": blocks,
        "batches": BATCHES,
        "times_as_fast": spread([torch_seconds / seconds for seconds, torch_seconds in pairs]),
        "step_seconds": {name: spread(side.seconds) for name, side in sides.items()},
        "cpu_seconds": {name: spread(side.cpu_seconds) for name, side in sides.items()},
        "first_step": first,
        "last_step": last,
        "limit": limit,
        "agrees": all(difference["relative"] <= limit for difference in first.values()),
    }


def _precision(config: Config) -> str:
    """Returns the precision of products. On a GPU, both sides compute float32 products in TF32."""
    dtype = matmul_dtype(config.task.model.matmul).name
    return "tf32" if dtype == "float32" and jax.default_backend() == "gpu" else dtype


def _differences(
    metrics: Mapping[str, Any], torch_metrics: Mapping[str, Any]
) -> dict[str, dict[str, float]]:
    """Returns both values and their relative difference, for each loss and the gradient norm."""
    differences = {}
    for name in sorted(torch_metrics):
        if name != "grad_norm" and not name.endswith("/loss"):
            continue
        value, torch_value = float(metrics[name]), float(torch_metrics[name])
        differences[name] = {
            "jax": value,
            "torch": torch_value,
            "relative": abs(value - torch_value) / max(abs(torch_value), 1e-30),
        }
    return differences
