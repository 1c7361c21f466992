"""Makes the tables of docs/hardware.md.

Usage: python -m tools.hardware_tables

Memory is what docs/plans/needs.json holds, which python -m tools.trace_needs makes. Times follow
from the entries of docs/benchmarks and from the plans of docs/plans.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from tools.benchmark_entries import read_all
from tools.command import run
from tools.gpu_table import table
from tools.hardware_times import (
    BATCH,
    EPOCH,
    PLANS,
    STEPS,
    cpu_lines,
    gpu_lines,
    read_plan,
    tpu_lines,
)
from tools.marked_text import replaced
from tools.step_needs import SPARE, Needs
from tools.trace_needs import EIGHT, EXACT, ONE, SIZES, read
from vlbeit_jax.cost.peaks import GIB
from vlbeit_jax.errors import UsageError

PAGE = pathlib.Path("docs/hardware.md")
MEMORIES = (8, 16, 24, 32, 40, 80, 141)
FEW = 8  # Rows at once below which remat is worth its time.
Models = Mapping[str, Mapping[str, Needs]]


def fit_lines(needs: Models, variant: str) -> list[str]:
    """Returns the table of the rows that fit at once, without remat and with remat=full."""
    columns = ["computed", "whatever the batch", "each row", *(f"{each} GiB" for each in MEMORIES)]
    rows = []
    for model, variants in needs.items():
        if variant not in variants:
            continue
        one = variants[variant]
        per_row = {remat: one.input_bytes + size for remat, size in one.activation_bytes.items()}
        each = " / ".join(
            f"{per_row[remat] / 1e6:.0f}" for remat in ("none", "full") if remat in per_row
        )
        rows.append(
            [
                f"{model}, {one.parameters / 1e6:.0f}M",
                f"{one.fixed_bytes / GIB:.1f} GiB",
                f"{each} MB",
                *(_fit(one, memory) for memory in MEMORIES),
            ]
        )
    return table(columns, rows)


def _fit(needs: Needs, gibibytes: float) -> str:
    found = [
        f"{needs.largest(gibibytes, remat):,}"
        for remat in ("none", "full")
        if remat in needs.activation_bytes
    ]
    return "-" if set(found) == {"0"} else " / ".join(found)


def flags_lines(needs: Models) -> list[str]:
    """Returns the table of microbatches and remat for ``BATCH`` rows of each stream."""
    columns = ["computed", *(f"{each} GiB" for each in MEMORIES)]
    rows = [[model, *(flags(needs[model][ONE], memory) for memory in MEMORIES)] for model in SIZES]
    return table(columns, rows)


def flags(needs: Needs, gibibytes: float) -> str:
    """Returns the fewest microbatches in which ``BATCH`` rows fit, and remat if it has to be."""
    for remat in ("none", "full"):
        accumulate = 1
        while (
            accumulate < BATCH and needs.total(BATCH, accumulate, remat) > SPARE * gibibytes * GIB
        ):
            accumulate *= 2
        fits = needs.total(BATCH, accumulate, remat) <= SPARE * gibibytes * GIB
        if fits and (remat == "full" or BATCH // accumulate >= FEW):
            return f"accumulate={accumulate}" + (", remat=full" if remat == "full" else "")
    return "does not fit"


def accuracy_lines(needs: Models, entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns the table of the formula beside what was measured and what was compiled."""
    rows = []
    for name, entry in entries.items():
        model = pathlib.PurePath(entry["config"]).stem.removeprefix("pretrain_")
        # The formula is for kernels that recompute the attention weights.
        if (
            entry["platform"] != "gpu"
            or not entry["peak_memory_bytes"]
            or entry["attention"] != "auto"
        ):
            continue
        count = entry["batch_sizes"]["image"]
        rows.append(
            _beside(
                f"measured: {model}, {count:,} of each, {entry['device']}",
                needs[model][ONE].total(count),
                entry["peak_memory_bytes"],
                f"[{name.removesuffix('.json')}](benchmarks/{name})",
            )
        )
    for model in ("base", "large"):
        path = PLANS / f"{model}-v5e-2x4.json"
        compiled = read_plan(path)
        count, accumulate = int(compiled["samples"]) // 3 // compiled["chips"], 32
        rows.append(
            _beside(
                f"compiled: {model}, 8 v5e chips with {count} of each in {accumulate} microbatches",
                needs[model][EIGHT].total(count, accumulate),
                compiled["hbm"]["total"],
                f"[{path.stem}](plans/{path.name})",
            )
        )
    return table(
        ("what", "by formula, GiB", "measured or compiled, GiB", "formula is", "from"), rows
    )


def _beside(what: str, formula: int, found: int, source: str) -> list[str]:
    share = formula / found - 1
    return [what, f"{formula / GIB:.1f}", f"{found / GIB:.1f}", f"{share:+.0%}", source]


def parts() -> dict[str, list[str]]:
    """Returns the lines of each part of the page that this command makes."""
    needs, entries = read(), read_all()
    return {
        "flags": flags_lines(needs),
        "one device": fit_lines(needs, ONE),
        "float32": fit_lines(needs, EXACT),
        "eight devices": fit_lines(needs, EIGHT),
        "accuracy": accuracy_lines(needs, entries),
        "epoch": gpu_lines(needs, entries, EPOCH),
        "steps": gpu_lines(needs, entries, STEPS * BATCH),
        "tpu": tpu_lines(),
        "cpu": cpu_lines(entries),
    }


def page(text: str) -> str:
    """Returns the page with its tables made anew."""
    for name, lines in parts().items():
        text = replaced(text, name, lines)
    return text


def main(arguments: list[str]) -> None:
    """Writes the page."""
    if arguments:
        raise UsageError(f"{arguments[0]}: this command takes no arguments")
    PAGE.write_text(page(PAGE.read_text()))
    print(f"{PAGE}: {len(parts())} tables")


if __name__ == "__main__":
    run(main, __doc__)
