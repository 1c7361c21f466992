"""JAX's train step and PyTorch's, on the same numbers, timed in turn."""

import os
import statistics
import time
from collections.abc import Mapping
from typing import Any

import jax
import torch

from vlbeit_jax.config import Config
from vlbeit_jax.convert.peer_step import TorchStep
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.layers import matmul_dtype
from vlbeit_jax.training.state import TrainState
from vlbeit_jax.training.step import TrainStep

# Of losses and gradient norm, relative. bfloat16 keeps 8 bits, and the two sides round at different places.
LIMITS = {"float32": 1e-4, "bfloat16": 2e-2}


def check_comparable(config: Config) -> None:
    """Raises a ``UsageError`` for what one of the two sides cannot do."""
    found = {
        f"task={config.task} (pretrain alone has a peer)": config.task != "pretrain",
        f"model.drop_path={config.model.drop_path} (the two sides draw differently; --config.model.drop_path=0.0)": config.model.drop_path,
        f"run.accumulate={config.run.accumulate} (--config.run.accumulate=1)": config.run.accumulate != 1,
        f"{jax.device_count()} devices (PyTorch's step runs on one)": jax.device_count() != 1,
    }
    if any(found.values()):
        raise UsageError(f"--peer=torch cannot be compared with {'; '.join(what for what, is_so in found.items() if is_so)}")


def compare(config: Config, step: TrainStep, state: TrainState, frozen: Any, batches: Any, steps: int, warmup: int) -> dict[str, Any]:
    """Seconds of single steps on both sides, one after the other in turning order, and the metrics of the first and the last.

    Args:
      config: of the run.
      step: JAX's.
      state: where both start.
      frozen: the visual tokenizer.
      batches: by stream, the same in every step.
      steps: that are timed.
      warmup: steps before them.

    Returns:
      For the report; ``agrees`` says whether the first step's losses and gradient norm are the same on both sides.
    """
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    peer = TorchStep(config, state.params, frozen, warmup + steps)
    theirs = {stream: peer.batch(rows) for stream, rows in batches.items()}

    def ours() -> Mapping[str, jax.Array]:
        nonlocal state
        state, metrics = step(state, frozen, batches)
        return jax.block_until_ready((state, metrics))[1]

    sides, metrics = {"jax": ours, "torch": lambda: peer(theirs)}, []
    clocks = {"step_seconds": time.perf_counter, "cpu_seconds": time.process_time}
    seconds = {clock: {name: [] for name in sides} for clock in clocks}
    for number in range(warmup + steps):
        found = {}
        for name in list(sides)[:: 1 if number % 2 else -1]:
            began = {clock: now() for clock, now in clocks.items()}
            found[name] = sides[name]()
            for clock, now in clocks.items():
                seconds[clock][name].append(now() - began[clock])
        metrics = [*metrics[:1], found]
    first, last = (_differences(found) for found in (metrics[0], metrics[-1]))
    limit = LIMITS[matmul_dtype(config.model.matmul).name]
    return {
        "device": jax.devices()[0].device_kind,
        "threads": threads,
        "peer": peer.name,
        "steps": steps,
        **{clock: _beside({name: values[warmup:] for name, values in both.items()}) for clock, both in seconds.items()},
        "first_step": first,
        "last_step": last,
        "limit": limit,
        "agrees": all(value["relative"] <= limit for value in first.values()),
    }


def _beside(seconds: Mapping[str, list[float]]) -> dict[str, Any]:
    ratios = [ours / theirs for ours, theirs in zip(seconds["jax"], seconds["torch"], strict=True)]
    return {name: _spread(values) for name, values in {**seconds, "jax_over_torch": ratios}.items()}


def _spread(values: list[float]) -> dict[str, Any]:
    return {"median": statistics.median(values), "quartiles": statistics.quantiles(values, n=4), "min": min(values), "max": max(values)}


def _differences(found: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    both = {}
    for name in sorted(name for name in found["torch"] if name == "grad_norm" or name.endswith("/loss")):
        ours, theirs = (float(found[side][name]) for side in ("jax", "torch"))
        both[name] = {"jax": ours, "torch": theirs, "relative": abs(ours - theirs) / max(abs(theirs), 1e-30)}
    return both
