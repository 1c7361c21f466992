"""Converts step times to rates and MFU, and describes what they were measured on."""

import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vlbeit_jax.cost.peaks import device_peak
from vlbeit_jax.models.layers import matmul_dtype
from vlbeit_jax.runtime import machine
from vlbeit_jax.runtime.versions import versions
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.flops import step_flops

PROBE = 1024  # Side of the matrices whose product measures the peak of a CPU.


class Peak(NamedTuple):
    """The denominator of MFU.

    Attributes:
      flops_per_second: of all devices; None if it is not known, and then there is no MFU.
      source: where it comes from, in words.
    """

    flops_per_second: float | None
    source: str


def peak_here() -> Peak:
    """Returns the peak of this machine's devices.

    It comes from the table for known accelerators; for a CPU it is measured.
    """
    kind = jax.devices()[0].device_kind
    if known := device_peak(kind):
        source = f"{kind}: dense bfloat16, vlbeit_jax/cost/peaks.py"
        return Peak(jax.device_count() * known, source)
    if jax.default_backend() == "cpu":
        measured = measured_peak() * jax.process_count()
        return Peak(measured, "measured: a product of float32 matrices of 1024 x 1024")
    return Peak(None, f"{kind} is not in the table of vlbeit_jax/cost/peaks.py")


def measured_peak() -> float:
    """Returns operations per second of this process's devices in float32 products, best of five.

    Simulated devices of a CPU share its cores, so one product stands for all of them.
    """
    x = jnp.ones((PROBE, PROBE), jnp.float32)
    multiply = jax.jit(jnp.dot)
    multiply(x, x).block_until_ready()
    best = float("inf")
    for _ in range(5):
        start = time.monotonic()
        multiply(x, x).block_until_ready()
        best = min(best, time.monotonic() - start)
    return 2 * PROBE**3 / best


def rates(config: Config, seconds: float, peak: Peak) -> dict[str, float | None]:
    """Returns rates of steps that take ``seconds`` each; ``tasks.flops`` counts operations."""
    flops = step_flops(config)
    return {
        "samples_per_second": flops.samples / seconds,
        "tokens_per_second": flops.tokens / seconds,
        "model_flops_per_second": flops.model / seconds,
        "mfu": flops.model / seconds / peak.flops_per_second if peak.flops_per_second else None,
    }


def circumstances(config: Config, peak: Peak) -> dict[str, Any]:
    """Returns devices, versions and sizes, for the report of a measurement."""
    flops = step_flops(config)
    return {
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "devices": jax.device_count(),
        "versions": machine.versions() | {"vlbeit_jax": versions()["vlbeit_jax"]},
        "matmul": matmul_dtype(config.task.model.matmul).name,
        "attention": config.task.model.attention,
        "batch_sizes": {name: stream.batch_size for name, stream in config.task.streams().items()},
        "model_flops": flops.model,
        "frozen_flops": flops.frozen,
        "peak_flops_per_second": peak.flops_per_second,
        "peak_source": peak.source,
    }


def peak_memory() -> int | None:
    """Returns the most bytes in use at once on the first device; None on CPUs.

    JAX does not count the memory of CPUs; see ``machine.peak_resident_bytes``.
    """
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Returns median, quartiles and extremes of at least two values."""
    return {
        "median": statistics.median(values),
        "quartiles": statistics.quantiles(values, n=4),
        "min": min(values),
        "max": max(values),
    }
