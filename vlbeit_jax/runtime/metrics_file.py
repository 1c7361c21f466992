"""A run's ``metrics.jsonl``: figures of each line, which JSON can hold."""

import json
import math
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from vlbeit_jax.places import appearing, append, settle
from vlbeit_jax.training.saved_run import METRICS_FILE

NOT_FINITE = "not_finite"  # Entry of a line: what each null stands for, "nan", "inf" or "-inf".
SET_ASIDE = "metrics.damaged.txt"


def read_metrics(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the lines of a run's metrics, with NaN and infinities for what was not finite.

    Lines that cannot be read are left out, and reported to the standard error output.
    """
    lines, damaged = _parsed(folder)
    if damaged:
        print(f"{folder / METRICS_FILE}: {_told(damaged)}; left out", file=sys.stderr)
    return lines


def last_figures(lines: Sequence[Mapping[str, Any]], split: str) -> dict[str, Any]:
    """Returns the newest figures of a split, with their step.

    Evaluators of one step write a line each; their figures are joined.

    Args:
      lines: of ``read_metrics``.
      split: "validation", for example.
    """
    figures: dict[str, Any] = {}
    for line in lines:
        if line["split"] == split:
            figures = {**figures, **line} if line["step"] == figures.get("step") else dict(line)
    return figures


def append_metrics(folder: pathlib.Path, line: Mapping[str, Any]) -> None:
    """Adds a line; JSON has no NaN, so what is not finite becomes null, with the reason beside."""
    append(folder / METRICS_FILE, _as_json(line).encode())


def drop_metrics_after(folder: pathlib.Path, step: int) -> str:
    """Removes lines of later steps, which a resumed run takes again.

    Lines that cannot be read are moved to another file.

    Returns:
      What the user is told of these; empty if there are none.
    """
    lines, damaged = _parsed(folder)
    if damaged:
        append(folder / SET_ASIDE, b"".join(line + b"\n" for _, line in damaged))
        settle()
    with appearing(folder / METRICS_FILE) as out:
        out.writelines(_as_json(line) for line in lines if line["step"] <= step)
    return f"{METRICS_FILE}: {_told(damaged)}; moved to {SET_ASIDE}" if damaged else ""


def _parsed(folder: pathlib.Path) -> tuple[list[dict[str, Any]], list[tuple[int, bytes]]]:
    """Returns the lines that can be read, and number and content of the others.

    If the process was killed while it wrote the last line, that line is in neither.
    """
    path = folder / METRICS_FILE
    lines: list[dict[str, Any]] = []
    damaged: list[tuple[int, bytes]] = []
    *whole, _ = path.read_bytes().split(b"\n") if path.is_file() else [b""]
    for number, content in enumerate(whole, 1):
        try:
            line = json.loads(content)
            if not {"step", "split"} <= line.keys():
                raise ValueError("it says no step")
        except (ValueError, AttributeError):
            damaged.append((number, content))
        else:
            lines.append(_with_infinities(line))
    return lines, damaged


def _told(damaged: Sequence[tuple[int, bytes]]) -> str:
    numbers = ", ".join(str(number) for number, _ in damaged[:5])
    more = ", ..." if len(damaged) > 5 else ""
    return f"line {numbers}{more} cannot be read"


def _as_json(line: Mapping[str, Any]) -> str:
    bad = {
        name: str(value)
        for name, value in line.items()
        if isinstance(value, float) and not math.isfinite(value)
    }
    finite = {**line, **dict.fromkeys(bad)} | ({NOT_FINITE: bad} if bad else {})
    return json.dumps(finite, allow_nan=False) + "\n"


def _with_infinities(line: dict[str, Any]) -> dict[str, Any]:
    reasons = line.pop(NOT_FINITE, {})
    return {
        name: float(reasons.get(name, "nan")) if value is None else value
        for name, value in line.items()
    }
