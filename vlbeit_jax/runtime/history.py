"""Every start of a run, in ``runs.jsonl``: one line when it starts, saves and ends.

A process that is killed writes no line at its end. What it has done until its last save is known.
"""

import json
import pathlib
import time
from collections.abc import Mapping
from typing import Any

from vlbeit_jax.places import append, settle

FILE = "runs.jsonl"
STARTED, SAVED, ENDED = "started", "saved", "ended"


class History:
    """Adds lines about one start."""

    def __init__(self, workdir: pathlib.Path, *, enabled: bool = True):
        """Args: ``workdir`` of the run; only one process is ``enabled``."""
        self._path, self._enabled = workdir / FILE, enabled

    def add(self, event: str, facts: Mapping[str, Any]) -> None:
        """Adds a line: STARTED, SAVED or ENDED, with the time and its facts."""
        if self._enabled:
            moment = time.strftime("%Y-%m-%dT%H:%M:%S%z")
            line = json.dumps({"event": event, "time": moment, **facts}) + "\n"
            append(self._path, line.encode())
            settle()


def read_history(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the lines of a run's history, oldest first. Lines that cannot be read are left out.

    A line may be cut off, because its process was killed.
    """
    path = workdir / FILE
    found = []
    for line in path.read_bytes().split(b"\n") if path.is_file() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and "event" in entry:
            found.append(entry)
    return found


def last_saved(workdir: pathlib.Path) -> int:
    """Returns the last step that the run has saved, by its history; 0 without one."""
    return max(
        (each["step"] for each in read_history(workdir) if each["event"] == SAVED), default=0
    )


def goodput(history: list[dict[str, Any]], step: int) -> dict[str, float]:
    """Returns where the time of all starts went, in seconds.

    Args:
      history: of ``read_history``.
      step: the newest saved one. Steps that were taken more than once count once.

    Returns:
      ``wall`` time of all starts until their last line, split into ``steps`` that were kept,
      ``lost`` ones, ``compile``, ``data``, ``checkpoint``, ``evaluation`` and ``start``; and
      ``goodput``, the share of ``steps``.
    """
    total: dict[str, float] = dict.fromkeys(
        ("wall", "steps", "lost", "compile", "data", "checkpoint", "evaluation", "start"), 0.0
    )
    starts: list[list[dict[str, Any]]] = []
    for entry in history:
        if entry["event"] == STARTED:
            starts.append([])
        if starts:
            starts[-1].append(entry)
    for number, entries in enumerate(starts):
        spent = next((each["seconds"] for each in reversed(entries) if "seconds" in each), {})
        first = entries[0]["step"]
        last = max(each["step"] for each in entries)
        following = starts[number + 1][0]["step"] if number + 1 < len(starts) else step
        kept = min(max(following - first, 0) / max(last - first, 1), 1.0)
        for name, seconds in spent.items():
            total[name] = total.get(name, 0.0) + seconds
        in_steps = spent.get("steps", 0.0)
        total["steps"] -= in_steps * (1 - kept)
        total["lost"] += in_steps * (1 - kept)
    return {**total, "goodput": total["steps"] / total["wall"] if total["wall"] else 0.0}
