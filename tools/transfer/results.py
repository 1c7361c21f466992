"""Compares a pretrained with a random start, in the form of ``transfer.json``."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vlbeit_jax.metrics.interval import mean_by_group, paired_gain
from vlbeit_jax.shapes import Float

# Whether each group counts once, by metric; otherwise each row counts once.
METRICS = {"accuracy_by_group": True, "accuracy_by_row": False}


def comparison(
    pretrained: Float[np.ndarray, " A"],
    random: Float[np.ndarray, " A"],
    floors: Mapping[str, Float[np.ndarray, " A"]],
    groups: np.ndarray,
    seeds: int,
) -> dict[str, Any]:
    """Returns the comparison by both metrics.

    Args:
      pretrained: share of right answers to each row, over seeds, between 0 and 1.
      random: the same for the random start.
      floors: the same for answers that need no network, or no picture.
      groups: group of each row; the bootstrap draws whole groups.
      seeds: random starts or seeds of training that were averaged; or folds, each with one seed.
    """
    found = {}
    for metric, once in METRICS.items():
        means = {
            name: mean_by_group(right, groups, each_group_once=once)
            for name, right in floors.items()
        }
        found[metric] = compared(pretrained, random, means, groups, seeds, each_group_once=once)
    return found


def compared(
    pretrained: Float[np.ndarray, " A"],
    random: Float[np.ndarray, " A"],
    floors: Mapping[str, float],
    groups: np.ndarray,
    seeds: int,
    *,
    each_group_once: bool,
) -> dict[str, Any]:
    """Returns the comparison by one metric, as ``comparison`` does; ``floors`` are means here."""
    gain = paired_gain(pretrained, random, groups, each_group_once=each_group_once)
    return {
        "pretrained": mean_by_group(pretrained, groups, each_group_once=each_group_once),
        "random": mean_by_group(random, groups, each_group_once=each_group_once),
        "floors": dict(floors),
        "gain": gain._asdict(),
        "seeds": seeds,
    }


def told(gain: Mapping[str, float]) -> str:
    """Returns a gain with its interval."""
    return f"{gain['value']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})"


def table(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Returns the results as a Markdown table."""
    lines = [
        "| task | metric | pretrained | random | gain (95%) | floors |",
        "|---|---|---|---|---|---|",
    ]
    for task, metrics in results.items():
        for metric, each in metrics.items():
            gain = each["gain"]
            floors = ", ".join(f"{name} {value:.3f}" for name, value in each["floors"].items())
            lines.append(
                f"| {task} | {metric} | {each['pretrained']:.3f} | {each['random']:.3f} | "
                f"{told(gain)} | {floors} |"
            )
    return "\n".join(lines)
