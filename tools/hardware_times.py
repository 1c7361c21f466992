"""Times of docs/hardware.md: computed for GPUs from what one was measured to do, and for TPUs.

The operations of a row follow from the configuration. How many a GPU does in a second was measured
on an H200. For another GPU there are two estimates: one scales the whole time by the peak, the
other scales products and attention by the peak and everything else by the memory's bandwidth.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from tools.gpu_table import table
from tools.step_needs import Needs
from tools.trace_needs import ONE
from vlbeit_jax.cost.peaks import GPUS, Gpu

PLANS = pathlib.Path("docs/plans")
# The entries that stand for a model on an H200. Nobody has measured the smaller models, so that
# their times take the share of the peak that base size reaches.
MEASURED = {"base": "h200-base-1024.json", "large": "h200-large-256.json"}
# docs/gpu.md, Where does the time go: milliseconds of products and attention, and of all kernels.
PRODUCTS, ALL = 35.0 + 7.6, 81.2
H200 = next(gpu for gpu in GPUS if gpu.name == "NVIDIA H200")
EPOCH, BATCH, STEPS = 1_000_000, 256, 100_000
HOUR, DAY = 3600.0, 86400.0


def seconds_of_row(
    needs: Needs, cached: bool, gpu: Gpu, entry: Mapping[str, Any]
) -> tuple[float, float]:
    """Returns the shorter and the longer estimate for a row of each stream.

    Args:
      needs: of the model.
      cached: whether visual tokens are read instead of computed.
      gpu: the card.
      entry: whose share of the peak is taken; measured on an H200.
    """
    row = entry["model_flops"] + entry["frozen_flops"]
    steps = entry["samples_per_second"] / sum(entry["batch_sizes"].values())
    operations = needs.model_flops + (0 if cached else needs.frozen_flops)
    on_h200 = operations / (row * steps)
    by_peak = H200.peak / gpu.peak
    products = PRODUCTS / ALL
    by_part = products * by_peak + (1 - products) * H200.memory_rate / gpu.memory_rate
    low, high = sorted((on_h200 * by_peak, on_h200 * by_part))
    return low, high


def gpu_lines(
    needs: Mapping[str, Mapping[str, Needs]],
    entries: Mapping[str, Mapping[str, Any]],
    rows: int,
) -> list[str]:
    """Returns the table of times for so many rows of each stream."""
    models = [("tiny", True), ("small", True), ("base", True), ("base", False), ("large", False)]
    columns = [f"{model}{', cached tokens' if cached else ''}" for model, cached in models]
    found = []
    for gpu in GPUS:
        cells = [
            _gpu_cell(needs[model][ONE], model, cached, gpu, entries, rows)
            for model, cached in models
        ]
        found.append([f"{gpu.name.removeprefix('NVIDIA ')}, {gpu.gibibytes} GB", *cells])
    return table(["computed", *columns], found)


def _gpu_cell(
    needs: Needs,
    model: str,
    cached: bool,
    gpu: Gpu,
    entries: Mapping[str, Mapping[str, Any]],
    rows: int,
) -> str:
    if not needs.largest(gpu.gibibytes, "full"):
        return "does not fit"
    entry = entries[MEASURED.get(model, MEASURED["base"])]
    low, high = seconds_of_row(needs, cached, gpu, entry)
    if model not in MEASURED:
        return f"over {duration(rows * low)}"
    measured = ", measured rate" if gpu is H200 and not cached else ""
    return spread(rows * low, rows * high) + measured


def tpu_lines() -> list[str]:
    """Returns the table of the plans that the TPU's compiler made."""
    columns = (
        "computed by the compiler",
        "chips",
        "GiB of a chip",
        "ms a step",
        "1,000,000 images",
        "100,000 steps",
        "chip-hours of these",
        "plan",
    )
    return table(columns, (_plan_cells(path) for path in sorted(PLANS.glob("*-*.json"))))


def read_plan(path: pathlib.Path) -> dict[str, Any]:
    """Returns what ``python -m vlbeit_jax.compile --json`` wrote."""
    return json.loads(path.read_text())


def _plan_cells(path: pathlib.Path) -> list[str]:
    plan = read_plan(path)
    low, high = plan["step_seconds"], plan["step_seconds_plain"]
    hbm, steps = plan["hbm"], EPOCH / (plan["samples"] / 3)
    model, cached = path.stem.partition("-")[0], "kept-tokens" in path.stem
    hours = [f"{STEPS * each * plan['chips'] / HOUR:,.0f}" for each in (low, high)]
    return [
        f"{model}{', cached tokens' if cached else ''}, {plan['topology']}",
        str(plan["chips"]),
        f"{hbm['total'] / 2**30:.1f} of {hbm['limit'] / 2**30:.0f}",
        f"{1e3 * low:,.0f} to {1e3 * high:,.0f}",
        spread(steps * low, steps * high),
        spread(STEPS * low, STEPS * high),
        " to ".join(hours),
        f"[{path.stem}](plans/{path.name})",
    ]


def cpu_lines(entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns the table of what was measured on CPUs."""
    columns = ("measured", "in a step", "s a step", "1,000,000 images", "100,000 steps", "entry")
    found = []
    for name, entry in entries.items():
        if entry["platform"] != "cpu":
            continue
        sizes = entry["batch_sizes"]
        seconds = sum(sizes.values()) / entry["samples_per_second"]
        processor = entry["machine"]["processor"]
        found.append(
            [
                f"{entry['config']}, {processor}",
                f"{sizes['image']} of each",
                f"{seconds:.2f}",
                duration(EPOCH / sizes["image"] * seconds),
                duration(STEPS * seconds),
                f"[{name.removesuffix('.json')}](benchmarks/{name})",
            ]
        )
    return table(columns, found)


def spread(low: float, high: float) -> str:
    """Returns "2.1 to 2.9 h", in the unit of the longer time; one figure if both look alike."""
    size, unit = _unit(high)
    one, other = (_figure(each / size) for each in (low, high))
    return f"{other} {unit}" if one == other else f"{one} to {other} {unit}"


def duration(seconds: float) -> str:
    """Returns "18 min", "2.1 h" or "12 days", for example."""
    size, unit = _unit(seconds)
    return f"{_figure(seconds / size)} {unit}"


def _unit(seconds: float) -> tuple[float, str]:
    if seconds < 1.5 * HOUR:
        return (1.0, "s") if seconds < 90 else (60.0, "min")
    return (HOUR, "h") if seconds < 3 * DAY else (DAY, "days")


def _figure(value: float) -> str:
    """Two digits; estimates have no more."""
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"
