"""What a model card tells about quality: figures beside what they are judged by."""

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from vlbeit_jax.runtime.hooks.evaluate import VALIDATION, VALIDATION_EMA
from vlbeit_jax.runtime.metrics_file import last_figures, read_metrics
from vlbeit_jax.tasks.figures import BASELINES

HEADER = ["| figure | value | 95% interval | without a network |", "|---|---|---|---|"]
# All other figures are shares of 1.
NO_SHARES = {
    "loss": "{:.3f}",
    "count": "{:,.0f}",
    "statements": "{:,.0f}",
    "cider": "{:.3f}",
    "cider_wrong_picture": "{:.3f}",
}
Figures = Mapping[str, Any]


def figures_of_evaluation(results: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the figures of an evaluation by ``group/name``; an interval has two numbers."""
    if "metrics" in results:
        chance = {
            f"{kind}/{name}_chance": value
            for kind in {name.split("/")[0] for name in results["metrics"]}
            for name, value in results.get("chance", {}).items()
        }
        return {**results["metrics"], **chance}
    flat = {}
    for group, values in results.items():
        if isinstance(values, dict) and "accuracy" in values:
            flat |= {f"{group}/{name}": value for name, value in values.items()}
        elif isinstance(values, dict) and "low" in values:
            flat |= {group: values["value"], f"{group}_interval": [values["low"], values["high"]]}
    return flat


def figures_of_run(folder: pathlib.Path, weights: str) -> tuple[int, dict[str, Any]] | None:
    """Returns the last figures on held-out data that a run has logged, and their step."""
    split = VALIDATION_EMA if weights == "ema" else VALIDATION
    figures = last_figures(read_metrics(folder), split)
    if not figures:
        return None
    return figures["step"], {
        name: value for name, value in figures.items() if name not in ("step", "split", "seconds")
    }


def figures_section(out: pathlib.Path, folder: pathlib.Path, weights: str) -> list[str]:
    """Returns the lines that say how good a model is.

    Args:
      out: the export; its ``evaluation.json`` counts first.
      folder: of the run, whose own figures are used otherwise.
      weights: "raw" or "ema".
    """
    path = out / "evaluation.json"
    if path.is_file():
        evaluation = json.loads(path.read_text(encoding="utf-8"))
        sets = ", ".join(f"`{pathlib.Path(each['folder']).name}`" for each in evaluation["data"])
        protocol = evaluation.get("protocol", {})
        split = protocol.get("split", "records that the run was not trained on")
        lines = [
            f"Measured by `vlbeit_jax.evaluate` on {sets} ({split}). What was done is in "
            "`evaluation.json`."
        ]
        return [*lines, "", *table(figures_of_evaluation(evaluation))]
    if (own := figures_of_run(folder, weights)) is None:
        return [
            "None: the run has evaluated nothing, and it was exported without `--data`, so it is "
            "not known how good the model is."
        ]
    step, figures = own
    title = f"On the held-out part of the run's own data, at step {step:,}."
    return [title, "", *table(figures)]


def table(figures: Figures) -> list[str]:
    """Returns figures as the rows of a table, each accuracy beside its baselines."""
    rows = []
    for name, value in figures.items():
        group, _, last = name.rpartition("/")
        beside = last in BASELINES or last.endswith(("_interval", "_chance"))
        if beside or last == "seconds" or not _is_number(value):
            continue
        prefix = f"{group}/" if group else ""
        baselines = {f"{name}_chance": BASELINES["chance"].answer}
        if last == "accuracy" or last.startswith(("ridge", "neighbours")):
            baselines |= {f"{prefix}{key}": each.answer for key, each in BASELINES.items()}
        against = {
            said: figures[key]
            for key, said in baselines.items()
            if key in figures and _is_number(figures[key])
        }
        told = ", ".join(f"{said} {_shown(last, each)}" for said, each in against.items())
        if against and value <= max(against.values()):
            told += " (**not beaten**)"
        rows.append(
            f"| `{name}` | {_shown(last, value)} | {_interval(last, figures, name)} | {told} |"
        )
    return HEADER + rows


def _interval(last: str, figures: Figures, name: str) -> str:
    interval: Sequence[float] | None = figures.get(f"{name}_interval")
    if interval is None:
        return ""
    low, high = interval
    gained = last.startswith("gain")
    return f"{_shown(last, low)} to {_shown(last, high)}" + (
        " (holds 0)" if gained and low <= 0 <= high else ""
    )


def _shown(last: str, value: float) -> str:
    if last in NO_SHARES:
        return NO_SHARES[last].format(value)
    return f"{value:+.2%}" if last.startswith("gain") else f"{value:.2%}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
