"""What a run leaves behind of itself: when, where, how long, with what."""

import contextlib
import datetime
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vlbeit_jax.report.content import Content
from vlbeit_jax.report.markup import Child, Section, definitions, element
from vlbeit_jax.runtime.devices import in_words
from vlbeit_jax.runtime.writer import TEXT_FILE
from vlbeit_jax.tasks import Config
from vlbeit_jax.training.checkpoint import Checkpointer
from vlbeit_jax.training.saved_run import CHECKPOINTS, START_FILE

TIME = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d):\d\d ", re.MULTILINE)
UNKNOWN = "not recorded"


def description_of(folder: pathlib.Path, step: int) -> dict[str, Any]:
    """Returns what the checkpoint of a step says of its run."""
    with contextlib.closing(Checkpointer(folder / CHECKPOINTS, read_only=True)) as checkpointer:
        return checkpointer.describe(step)


def times(folder: pathlib.Path) -> tuple[str, str] | None:
    """Returns when the log begins and ends, in the local time of the machine; None without one."""
    path = folder / TEXT_FILE
    stamps = TIME.findall(path.read_text()) if path.is_file() else []
    return (stamps[0], stamps[-1]) if stamps else None


def seconds(metrics: Sequence[Mapping[str, Any]]) -> float:
    """Returns how long the steps of a run took, over all processes that took some of them.

    Each process counts from its own start, so a smaller number than before begins a new one.
    """
    total = last = 0.0
    for line in metrics:
        now = line.get("seconds", 0.0)
        if now < last:
            total += last
        last = now
    return total + last


def as_duration(count: float) -> str:
    """Returns a duration in words."""
    if count < 120:
        return f"{count:.0f} seconds"
    minutes = round(count / 60)
    return f"{minutes} minutes" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def devices_of(description: Mapping[str, Any]) -> str:
    """Returns on what a run was trained."""
    devices = description.get("devices")
    return in_words(devices) if devices else UNKNOWN


def run_section(
    folder: pathlib.Path,
    config: Config,
    description: Mapping[str, Any],
    content: Content,
    metrics: Sequence[Mapping[str, Any]],
) -> Section:
    """Returns where, when and with what a run was made.

    Args:
      folder: of the run.
      config: of the run.
      description: what its newest checkpoint says of it.
      content: of its page.
      metrics: of the run.
    """
    log, start = times(folder), folder / START_FILE
    versions = description.get("versions", {})
    begun_from = json.loads(start.read_text())["from"] if start.is_file() else None
    rows: list[tuple[Child, Child]] = [
        ("Folder", element("code", folder)),
        ("Steps", f"{content.step:,} of {config.run.steps:,}"),
        ("Date", f"{log[0]} to {log[1]}, in the local time of the machine" if log else UNKNOWN),
        ("Training time", as_duration(seconds(metrics)) if metrics else UNKNOWN),
        ("Device", devices_of(description)),
        ("Parameters", f"{content.parameters:,}"),
        ("Started from", element("code", begun_from) if begun_from else "random parameters"),
        ("Seed", config.run.seed),
        ("Versions", ", ".join(f"{name} {each}" for name, each in versions.items()) or UNKNOWN),
        ("Page made", f"{datetime.datetime.now():%Y-%m-%d %H:%M}"),
    ]
    return Section("The run", [definitions(rows)])
