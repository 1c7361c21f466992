"""A page of text about the folder of a run."""

import pathlib
from collections.abc import Mapping
from typing import Any

from vlbeit_jax.errors import Damaged, Exit, UsageError
from vlbeit_jax.places import bytes_in
from vlbeit_jax.progress import duration
from vlbeit_jax.runtime.history import (
    ENDED,
    ROLLED_BACK,
    SAVED,
    SPENT,
    STARTED,
    goodput,
    read_history,
)
from vlbeit_jax.runtime.metrics_file import read_metrics
from vlbeit_jax.tasks.runs import read_config
from vlbeit_jax.training.checkpoint import Checkpointer
from vlbeit_jax.training.saved_run import CHECKPOINTS, DAMAGED
from vlbeit_jax.training.saved_step import SavedStep

NO_DIGEST = "no digest, an earlier version saved it"


def damaged_steps(folder: pathlib.Path, *, arrays: bool) -> dict[int, str]:
    """Returns what is wrong with each step of a run; empty for a step that is not damaged.

    Args:
      folder: of the run.
      arrays: whether to read every array, and not only what the step says of itself.
    """
    checkpointer = Checkpointer(folder / CHECKPOINTS, read_only=True)
    return {step: _damage(checkpointer.step(step), arrays) for step in checkpointer.steps()}


def page(folder: pathlib.Path, damages: Mapping[int, str]) -> str:
    """Returns the page.

    Args:
      folder: of the run.
      damages: of each step, as ``damaged_steps`` returns it.

    Raises:
      UsageError: the folder is not that of a run.
    """
    config, history = read_config(folder), read_history(folder)
    steps = config.run.steps
    lines = [f"{folder}: task {config.task.kind}, {config.task.schedule}, {steps:,} steps"]
    metrics = read_metrics(folder)
    if metrics:
        last = metrics[-1]
        lines.append(f"figures: {len(metrics)} lines, the last of step {last['step']:,}")
    checkpointer = Checkpointer(folder / CHECKPOINTS, read_only=True)
    lines.append(f"checkpoints: {len(damages) or 'none'}")
    lines += [f"  {_step_line(checkpointer.step(step), damages[step])}" for step in damages]
    if (folder / DAMAGED).is_dir():
        names = sorted(path.name for path in (folder / DAMAGED).iterdir())
        lines.append(f"moved aside, in {DAMAGED}/: {', '.join(names)}")
    lines.append(f"starts: {sum(each['event'] == STARTED for each in history) or 'none recorded'}")
    lines += [f"  {line}" for line in _starts(history)]
    lines += [
        f"rolled back: from step {each['step']:,} to the state of step {each['to']:,}"
        for each in history
        if each["event"] == ROLLED_BACK
    ]
    if history:
        lines += _time_lines(goodput(history, max(damages, default=0)))
    lines.append(f"size: {_megabytes(folder)} in all")
    return "\n".join(lines)


def _damage(step: SavedStep, arrays: bool) -> str:
    try:
        step.require_known_format()
        for path in sorted(step.folder.iterdir()):
            if path.is_dir() and (path / "_METADATA").is_file():
                leaves = step.leaves(path.name)
                for _ in leaves.items() if arrays else ():
                    pass  # Each array is checked as it is read.
        missing = [name for name in step.trees() if not (step.folder / name).is_dir()]
    except (Damaged, UsageError) as error:
        return str(error)
    return f"{', '.join(missing)} missing" if missing else ""


def _step_line(step: SavedStep, damage: str) -> str:
    said = damage
    if not damage:
        said = f"{len(step.trees())} trees with digests" if step.has_digests else NO_DIGEST
        version = step.description.get("versions", {}).get("vlbeit_jax", "an unknown version")
        said += f", format {step.format}, by vlbeit_jax {version}"
    return f"step {int(step.folder.name):,}: {_megabytes(step.folder)}: {said}"


def _time_lines(totals: Mapping[str, float]) -> list[str]:
    """Returns where the time of all starts went, and what was lost."""
    shares = ", ".join(
        f"{name} {duration(totals[name])}" for name in SPENT if round(totals[name]) >= 1
    )
    lines = [f"time: {duration(totals['wall'])}, goodput {totals['goodput']:.1%} ({shares or '-'})"]
    if totals["lost_steps"]:
        lines.append(f"lost: {totals['lost_steps']:,.0f} steps were taken again or rolled back")
    if round(totals["unrecorded"]) >= 1:
        lines.append(
            f"not recorded: {duration(totals['unrecorded'])} between the last line of a start that "
            "was killed and the next start"
        )
    return lines


def _starts(history: list[dict[str, Any]]) -> list[str]:
    lines: list[str] = []
    for entry in history:
        if entry["event"] == STARTED:
            hosts, mesh = entry.get("hosts", []), entry.get("mesh", {})
            axes = " x ".join(f"{name} {size}" for name, size in mesh.items() if size > 1)
            on = f"{len(hosts)} process(es){f', {axes}' if axes else ''}"
            lines.append(f"{entry['time']}: from step {entry['step']:,} on {on}: no end recorded")
        elif not lines:
            continue
        elif entry["event"] == SAVED:
            head = lines[-1].rpartition(": ")[0]
            lines[-1] = f"{head}: no end recorded after saving step {entry['step']:,}"
        elif entry["event"] == ENDED:
            head = lines[-1].rpartition(": ")[0]
            code = "" if entry["code"] == Exit.DONE else f", exit code {entry['code']}"
            lines[-1] = f"{head}: {entry['ended']} at step {entry['step']:,}{code}"
    return lines


def _megabytes(folder: pathlib.Path) -> str:
    return f"{bytes_in(folder) / 1e6:,.1f} MB"
