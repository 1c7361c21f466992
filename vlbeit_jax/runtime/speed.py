"""Converts step times to samples, tokens and operations per second and MFU; describes what they were measured on."""

import platform
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from vlbeit_jax.config import Config
from vlbeit_jax.cost.peaks import device_peak
from vlbeit_jax.models.layers import matmul_dtype
from vlbeit_jax.runtime.throughput import peak_of_all_devices
from vlbeit_jax.tasks.flops import step_flops
from vlbeit_jax.training.schedule import Schedule


class Peak(NamedTuple):
    """The denominator of MFU.

    Attributes:
      flops_per_second: of all devices; None if it is not known, and then there is no MFU.
      source: where it comes from, in words.
    """

    flops_per_second: float | None
    source: str


def peak_here() -> Peak:
    """Returns the peak of this machine's devices: from the table for known accelerators, measured for a CPU."""
    kind = jax.devices()[0].device_kind
    if device_peak(kind):
        return Peak(peak_of_all_devices(), f"{kind}: dense bfloat16, vlbeit_jax/cost/peaks.py")
    if jax.default_backend() == "cpu":
        return Peak(peak_of_all_devices(), "measured: a product of float32 matrices of 1024 x 1024")
    return Peak(None, f"{kind} is not in the table of vlbeit_jax/cost/peaks.py")


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
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
        "matmul": matmul_dtype(config.model.matmul).name,
        "attention": config.model.attention,
        "batch_sizes": {
            stream: getattr(config.data, stream).batch_size
            for stream in Schedule.parse(config.run.schedule).streams
        },
        "model_flops": flops.model,
        "frozen_flops": flops.frozen,
        "peak_flops_per_second": peak.flops_per_second,
        "peak_source": peak.source,
    }


def peak_memory() -> int | None:
    """Returns the most bytes in use at once on the first device since the start; None if JAX does not count them (CPUs)."""
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Returns median, quartiles and extremes of at least two values."""
    return {
        "median": statistics.median(values),
        "quartiles": statistics.quantiles(values, n=4),
        "min": min(values),
        "max": max(values),
    }
