"""Every start of a run, in ``runs.jsonl``: one line when it starts, saves and ends.

A process that is killed writes no line at its end. What it has done until its last save is known.
"""

import datetime
import itertools
import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from vlbeit_jax.places import append, settle
from vlbeit_jax.redact import redacted

FILE = "runs.jsonl"
STARTED, SAVED, ENDED, ROLLED_BACK = "started", "saved", "ended", "rolled back"
MOMENT = "%Y-%m-%dT%H:%M:%S%z"  # How a line writes its time.


class History:
    """Adds lines about one start."""

    def __init__(self, workdir: pathlib.Path, *, enabled: bool = True):
        """Takes the folder of a run; only one process is ``enabled``, so only one writes."""
        self._path, self._enabled = workdir / FILE, enabled

    def add(self, event: str, facts: Mapping[str, Any]) -> None:
        """Adds a line: STARTED, SAVED, ROLLED_BACK or ENDED, with the time and its facts."""
        if self._enabled:
            moment = time.strftime(MOMENT)
            line = redacted({"event": event, "time": moment, **facts})
            append(self._path, (json.dumps(line) + "\n").encode())
            settle()


def read_history(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the lines of a run's history, oldest first. Lines that cannot be used are left out.

    A line may be cut off, because its process was killed, or damaged.
    """
    path = workdir / FILE
    entries = []
    for line in path.read_bytes().split(b"\n") if path.is_file() else ():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if _is_usable(entry):
            entries.append(entry)
    return entries


def _is_usable(entry: Any) -> bool:
    """Whether a line has what is read of it."""
    if not isinstance(entry, dict) or not isinstance(entry.get("time"), str):
        return False
    numbers = {STARTED: ("step",), SAVED: ("step",), ENDED: ("step", "code")}
    names = numbers | {ROLLED_BACK: ("step", "to")}
    seconds = entry.get("seconds", {})
    return (
        entry.get("event") in names
        and all(isinstance(entry.get(name), int) for name in names[entry["event"]])
        and (entry["event"] != ENDED or isinstance(entry.get("ended"), str))
        and isinstance(seconds, dict)
        and all(isinstance(each, int | float) for each in seconds.values())
    )


def last_saved(workdir: pathlib.Path) -> int:
    """Returns the last step that the run has saved, by its history; 0 without one."""
    return max(
        (each["step"] for each in read_history(workdir) if each["event"] == SAVED), default=0
    )


SPENT = ("steps", "lost", "start", "compile", "data", "checkpoint", "evaluation")


def starts(history: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Returns the lines of each start."""
    grouped: list[list[dict[str, Any]]] = []
    for entry in history:
        if entry["event"] == STARTED:
            grouped.append([])
        if grouped:
            grouped[-1].append(entry)
    return grouped


def goodput(history: Sequence[dict[str, Any]], step: int) -> dict[str, float]:
    """Returns where the time of all starts went, in seconds.

    Args:
      history: of ``read_history``.
      step: the newest saved one. Steps that were taken more than once count once.

    Returns:
      ``wall`` time of all starts until their last line, split into what ``SPENT`` lists: ``steps``
      that were kept, ``lost`` ones and so on; ``goodput``, the share of ``steps``; ``lost_steps``,
      the number of those that were taken and not kept, as far as is recorded; and ``unrecorded``
      seconds, between the last line of a start that has no end and the next start. A process that
      was killed has worked during a part of these.
    """
    total = dict.fromkeys(("wall", *SPENT, "lost_steps", "unrecorded"), 0.0)
    all_starts = starts(history)
    for entries, following in itertools.zip_longest(all_starts, all_starts[1:]):
        spent = next((each["seconds"] for each in reversed(entries) if "seconds" in each), {})
        first = entries[0]["step"]
        last = max(each["step"] for each in entries)
        goes_on = following[0]["step"] if following else step
        taken = max(last - first, 1)
        undone = sum(each["step"] - each["to"] for each in entries if each["event"] == ROLLED_BACK)
        kept = max(min(max(goes_on - first, 0) / taken, 1.0) - undone / taken, 0.0)
        for name, seconds in spent.items():
            total[name] = total.get(name, 0.0) + seconds
        in_steps = spent.get("steps", 0.0)
        total["steps"] -= in_steps * (1 - kept)
        total["lost"] += in_steps * (1 - kept)
        total["lost_steps"] += max(last - goes_on, 0) + undone
        if following and entries[-1]["event"] != ENDED:
            total["unrecorded"] += _between(entries[-1], following[0])
    return {**total, "goodput": total["steps"] / total["wall"] if total["wall"] else 0.0}


def _between(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Returns the seconds between two lines; 0 if one does not say its time."""
    try:
        first, second = (datetime.datetime.strptime(each["time"], MOMENT) for each in (one, other))
    except (KeyError, ValueError):
        return 0.0
    return max((second - first).total_seconds(), 0.0)
