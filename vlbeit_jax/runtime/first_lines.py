"""The first lines of a run: on what, with which data, what it trains, and where it is written."""

import os
from collections.abc import Mapping, Sequence

import jax

from vlbeit_jax.data.source import PreparedSet
from vlbeit_jax.runtime.run import Run
from vlbeit_jax.training.saved_run import METRICS_FILE

INDENT = " " * 8


def first_lines(run: Run, parameters: int, start: int) -> str:
    """Returns the lines.

    Args:
      run: that starts or resumes.
      parameters: numbers that are trained.
      start: steps taken so far.
    """
    steps = run.config.run.steps
    data = f"\n{INDENT}".join(data_lines(run.data.sources)) or "made by the task"
    resumed = f"resumes at step {start:,} of {steps:,}" if start else f"{steps:,} steps"
    return "\n".join(
        [
            f"device: {device_line(run.mesh.shape)}",
            f"data:   {data}",
            f"model:  {run.task.kind}, {parameters:,} parameters",
            f"run:    {run.workdir}, {resumed}; every figure is in {METRICS_FILE}",
        ]
    )


def device_line(axes: Mapping[str, int]) -> str:
    """Returns the devices of all hosts in words.

    Args:
      axes: of the mesh.
    """
    first = jax.devices()[0]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = describe_devices(
        first.platform, first.device_kind, jax.device_count(), jax.process_count(), cores or 1
    )
    used = ", ".join(f"{axis} {size}" for axis, size in axes.items() if size > 1)
    return f"{name} (mesh: {used})" if used else name


def describe_devices(platform: str, kind: str, devices: int, hosts: int, cores: int) -> str:
    """Returns "CPU, 2 cores", "NVIDIA H100 80GB HBM3" or "8 x TPU v4 on 2 hosts".

    Args:
      platform: of JAX.
      kind: of a device, as JAX names it.
      devices: of all hosts.
      hosts: processes.
      cores: that this process may use.
    """
    on = f" on {hosts} hosts" if hosts > 1 else ""
    if platform != "cpu":
        return f"{devices} x {kind}{on}" if devices > 1 else kind
    has = f"{cores} core{'s' if cores > 1 else ''}"
    # A CPU is one device, unless XLA is told to simulate several.
    if devices > hosts:
        return f"{devices} simulated devices{on}, CPU, {has}"
    return f"{devices} x CPU{on}, {has} each" if hosts > 1 else f"CPU, {has}"


def data_lines(sources: Mapping[str, Sequence[PreparedSet]]) -> list[str]:
    """Returns a line per set: the streams that read it, its name and kind, records by split."""
    streams: dict[str, list[str]] = {}
    found = {each.name: each for sets in sources.values() for each in sets}
    for stream, sets in sources.items():
        for each in sets:
            streams.setdefault(each.name, []).append(stream)
    return [
        f"{', '.join(streams[name])}: {name} ({each.kind}): {_counts(each)}"
        for name, each in found.items()
    ]


def _counts(each: PreparedSet) -> str:
    return ", ".join(f"{split} {count:,}" for split, count in each.meta["counts"].items())
