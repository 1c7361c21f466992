"""The first lines of a run: on what, with which data, what it trains, and where it is written."""

from collections.abc import Mapping, Sequence

from vlbeit_jax.data.source import PreparedSet
from vlbeit_jax.runtime.devices import devices, in_words
from vlbeit_jax.runtime.run import Run
from vlbeit_jax.training.saved_run import METRICS_FILE

INDENT = " " * 8


def first_lines(run: Run, parameters: int, start: int) -> str:
    """Returns the lines.

    Args:
      run: that starts or resumes.
      parameters: numbers of the network.
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
    name = in_words(devices())
    used = ", ".join(f"{axis} {size}" for axis, size in axes.items() if size > 1)
    return f"{name} (mesh: {used})" if used else name


def data_lines(sources: Mapping[str, Sequence[PreparedSet]]) -> list[str]:
    """Returns a line per set: the streams that read it, its name and kind, records by split."""
    streams: dict[str, list[str]] = {}
    by_name = {each.name: each for sets in sources.values() for each in sets}
    for stream, sets in sources.items():
        for each in sets:
            streams.setdefault(each.name, []).append(stream)
    return [
        f"{', '.join(streams[name])}: {name} ({each.kind}): {_counts(each)}"
        for name, each in by_name.items()
    ]


def _counts(each: PreparedSet) -> str:
    return ", ".join(f"{split} {count:,}" for split, count in each.meta["counts"].items())
