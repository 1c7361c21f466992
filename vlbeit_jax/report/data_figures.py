"""Histograms of a data set, as panels."""

import collections
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from vlbeit_jax.report.measures import Measures
from vlbeit_jax.report.panels import Panel, Theme

BINS = 32
MOST_SCRIPTS, LEAST_SHARE = 8, 0.001


def data_panels(measures: Measures, sides: Sequence[int], lengths: Sequence[int]) -> list[Panel]:
    """Returns the histograms of what a set has.

    Args:
      measures: measures of the set.
      sides: of the pictures of the streams that read it, pixels.
      lengths: of the texts of these streams, word pieces.
    """
    panels = []
    if len(measures.widths):
        shorter = np.minimum(measures.widths, measures.heights)
        alt = f"Shorter sides from {shorter.min()} to {shorter.max()} pixels"
        draw = functools.partial(_histogram, shorter, "shorter side, pixels", sides)
        panels.append(Panel("Sizes of pictures", alt, draw))
        ratios = np.log2(measures.widths / measures.heights)
        alt = (
            f"Width over height from {2 ** float(ratios.min()):.2f} to "
            f"{2 ** float(ratios.max()):.2f}"
        )
        draw = functools.partial(_ratios, ratios)
        panels.append(Panel("Shapes of pictures", alt, draw))
    if len(measures.lengths):
        alt = f"Texts of {measures.lengths.min()} to {measures.lengths.max()} pieces"
        draw = functools.partial(
            _histogram, measures.lengths, "word pieces, CLS and SEP included", lengths
        )
        panels.append(Panel("Lengths of texts", alt, draw))
    if measures.scripts:
        shares = script_shares(measures.scripts)
        alt = ", ".join(f"{name} {share:.1%}" for name, share in shares)
        panels.append(Panel("Scripts of texts", alt, functools.partial(_scripts, shares)))
    return panels


def script_shares(scripts: collections.Counter[str]) -> list[tuple[str, float]]:
    """Returns the most frequent scripts with their share of the letters, if it is not tiny."""
    total = sum(scripts.values())
    shares = [(name, count / total) for name, count in scripts.most_common(MOST_SCRIPTS)]
    return [(name, share) for name, share in shares if share >= LEAST_SHARE]


def _histogram(
    values: np.ndarray, label: str, limits: Sequence[int], axes: Any, theme: Theme
) -> None:
    edges = np.linspace(0.9 * values.min(), 1.1 * values.max() + 1, BINS + 1)
    axes.hist(values, edges, color=theme.first)
    for number, limit in enumerate(dict.fromkeys(limits)):
        style = ("--", ":", "-.")[number % 3]
        axes.axvline(limit, color=theme.second, linestyle=style, label=f"the network's {limit}")
    axes.set(xlabel=label, ylabel="number")


def _ratios(ratios: np.ndarray, axes: Any, theme: Theme) -> None:
    edges = np.linspace(ratios.min() - 0.1, ratios.max() + 0.1, BINS + 1)
    axes.hist(ratios, edges, color=theme.first)
    places = np.arange(np.floor(edges[0]), np.ceil(edges[-1]) + 1)
    axes.set_xticks(places, [f"{2**place:g}" for place in places])
    axes.set(xlabel="width over height", ylabel="number")


def _scripts(shares: list[tuple[str, float]], axes: Any, theme: Theme) -> None:
    names = [name for name, _ in shares]
    axes.bar(names, [100 * share for _, share in shares], color=theme.first)
    axes.tick_params(axis="x", labelrotation=30 if len(names) > 3 else 0)
    axes.set(ylabel="% of letters", ylim=(0, 100))
