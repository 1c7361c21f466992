"""Makes the table of docs/benchmarks/README.md from the entries beside it.

Usage: python -m tools.benchmark_table [ENTRY.json ...]

With files, it only checks these entries and prints their rows.
"""

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from tools.benchmark_entries import FOLDER, read, read_all
from tools.command import run
from tools.gpu_table import rates, table
from tools.marked_text import replaced

PAGE = FOLDER / "README.md"
NAME = "entries"
COLUMNS = (
    "device",
    "configuration",
    "in a step",
    "ms a step (quartiles)",
    "samples/s",
    "model TFLOP/s",
    "MFU",
    "peak memory, GiB",
    "compilation, s",
    "products, attention, visual tokens",
    "jax",
    "date",
    "entry",
)


def markdown(entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns the lines of the table; a cell without a measurement is empty."""
    return table(COLUMNS, (_cells(name, entry) for name, entry in entries.items()))


def _cells(name: str, entry: Mapping[str, Any]) -> list[str]:
    compiled = entry["compile_seconds"]
    return [
        _device(entry),
        _configuration(entry["config"]),
        in_a_step(entry["batch_sizes"]),
        _milliseconds(entry["step_seconds"]),
        *rates(entry),
        f"{compiled:.0f}" if compiled else "",
        ", ".join(_how(entry)),
        entry["versions"]["jax"],
        entry["date"],
        f"[{name.removesuffix('.json')}]({name})",
    ]


def _device(entry: Mapping[str, Any]) -> str:
    machine = entry["machine"]
    if entry["platform"] != "cpu":
        count = entry["devices"]
        return f"{count} x {entry['device']}" if count > 1 else entry["device"]
    cores = f", {machine['cores']} cores" if machine["cores"] else ""
    return f"CPU: {machine['processor']}{cores}"


def _configuration(name: str) -> str:
    path, _, size = name.partition(":")
    return f"{pathlib.PurePath(path).stem} {size}".rstrip()


def in_a_step(batch_sizes: Mapping[str, int]) -> str:
    """Returns "32 of each" or "32 image, 64 pair"."""
    if len(set(batch_sizes.values())) == 1 and len(batch_sizes) > 1:
        return f"{next(iter(batch_sizes.values())):,} of each"
    return ", ".join(f"{count:,} {stream}" for stream, count in batch_sizes.items())


def _milliseconds(seconds: Mapping[str, Any] | None) -> str:
    if seconds is None:
        return ""
    low, *_, high = (f"{1e3 * each:,.1f}" for each in seconds.get("quartiles") or (0, 0))
    spread = f" ({low} to {high})" if seconds.get("quartiles") else ""
    return f"{1e3 * seconds['median']:,.1f}{spread}"


def _how(entry: Mapping[str, Any]) -> Iterable[str]:
    yield entry["matmul"]
    yield entry["attention"]
    if entry["changes"].get("task.visual_tokens"):
        yield "cached"
    elif entry["frozen_flops"]:
        yield "computed"


def main(arguments: list[str]) -> None:
    """Checks entries, or writes the page."""
    if arguments:
        given = {pathlib.Path(name).name: read(pathlib.Path(name)) for name in arguments}
        print("\n".join(markdown(given)))
        return
    entries = read_all()
    PAGE.write_text(replaced(PAGE.read_text(), NAME, markdown(entries)))
    print(f"{PAGE}: {len(entries)} entries")


if __name__ == "__main__":
    run(main, __doc__)
