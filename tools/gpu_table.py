"""Writes the table of tools/gpu_check.py as JSON lines and as Markdown.

It also states the card, versions and published figures.
"""

import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vlbeit_jax.runtime.machine import PACKAGES

COLUMNS = (
    "what",
    "batch",
    "samples/s",
    "model TFLOP/s",
    "MFU",
    "peak memory, GiB",
    "wall, s",
    "notes",
)
# Published by others, whose models and ways to count operations differ from ours.
NEIGHBOURS = (
    ("ViT-B/16 in JAX on 8 H100 (NVIDIA JAX-Toolbox, 2023)", "1,459 images/s a GPU, 16% MFU"),
    ("ModernBERT-base", "about 25% MFU"),
    ("GPT-2 124M in hand-written CUDA", "about 40% MFU"),
)


def write(out: pathlib.Path, head: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows.jsonl (the first line describes the machine) and gpu.md."""
    (out / "rows.jsonl").write_text("".join(json.dumps(each) + "\n" for each in (head, *rows)))
    (out / "gpu.md").write_text(markdown(head, rows))


def markdown(head: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """The table, with the machine and software above it and published figures below it."""
    where = (
        "CPU rehearsal with tiny sizes: no figure here means anything"
        if head.get("rehearsal")
        else head.get("card", "")
    )
    software = ", ".join(
        f"{name} {head[name]}" for name in ("driver", "python", *PACKAGES) if name in head
    )
    lines = [
        f"Measured on {head['date']}: {where}; {software}.",
        "",
        *table(COLUMNS, [_cells(row) for row in rows]),
        "",
        *table(("neighbour", "published"), NEIGHBOURS),
    ]
    return "\n".join(lines) + "\n"


def line(row: Mapping[str, Any]) -> str:
    """One row as text for a terminal."""
    names = zip(COLUMNS, _cells(row), strict=True)
    return "  ".join(f"{name} {cell}" for name, cell in names if cell)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *rows)]


def rates(row: Mapping[str, Any]) -> list[str]:
    """Cells of samples/s, model TFLOP/s, MFU and GiB; empty where nothing was measured."""
    flops = row.get("model_flops_per_second")
    return [
        _number(row.get("samples_per_second"), 1, ",.0f"),
        _number(flops, 1e-12, ",.1f" if flops and flops >= 1e12 else ".3f"),
        _number(row.get("mfu"), 100, ".1f", "%"),
        _number(row.get("peak_memory_bytes"), 2**-30, ".1f"),
    ]


def _cells(row: Mapping[str, Any]) -> list[str]:
    """Cells in the order of ``COLUMNS``; a cell without a measurement is empty."""
    return [
        row["row"],
        str(row.get("batch", "")),
        *rates(row),
        str(row.get("seconds", "")),
        _notes(row),
    ]


def _number(value: float | None, scale: float, form: str, unit: str = "") -> str:
    return "" if value is None else f"{value * scale:{form}}{unit}"


def _notes(row: Mapping[str, Any]) -> str:
    found = []
    if "tests" in row:
        found.append(", ".join(f"{count} {kind}" for kind, count in row["tests"].items()))
    if "compile_seconds" in row:
        found.append(f"compiled in {row['compile_seconds']:.0f} s")
    if "times_as_fast" in row:
        ratio, worst = (
            row["times_as_fast"],
            max(each["relative"] for each in row["first_step"].values()),
        )
        low, _, high = ratio["quartiles"]
        found.append(
            f"ours is {ratio['median']:.2f} times as fast (quartiles {low:.2f} to {high:.2f})"
        )
        found.append(f"first step differs by {worst:.1e}; {row['peer']}")
    if "first_step_seconds" in row:
        found.append(f"first step {row['first_step_seconds']:.0f} s, compilation included")
    if "losses" in row:
        found.append(
            "losses "
            + ", ".join(
                f"{name.split('/')[0]} {a:.2f} to {b:.2f}" for name, (a, b) in row["losses"].items()
            )
        )
    if "data_wait" in row and "step" in row:
        found.append(f"{row['step']} steps, {row['data_wait']:.1%} waiting for data")
    if "milliseconds" in row:
        low, high = row["quartiles"]
        found.append(f"{row['milliseconds']:.2f} ms (quartiles {low:.2f} to {high:.2f})")
        found.append(f"{row['temporaries_mib']:,.0f} MiB of temporaries")
        found.append(f"largest error {row['largest_error']:.1e}")
    if "error" in row:
        found.append(f"**{row['error']}**".replace("|", "/"))
    return "; ".join(found)
