"""What the page of any run has, whatever its task."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vlbeit_jax.report.data import Use
from vlbeit_jax.report.markup import Child, Html, Section, element, figure, picture
from vlbeit_jax.report.panels import DARK, LIGHT, Panel, drawn, joined
from vlbeit_jax.report.verdicts import Verdict

SHOWN = 12  # Examples of a kind.


class Content(NamedTuple):
    """The part of a page that depends on the task.

    Attributes:
      what: one sentence: what the run trains.
      in_short: the verdicts, a line each.
      sections: results first.
      uses: data sets and what they were used for.
      step: of the newest checkpoint.
      parameters: their number.
    """

    what: str
    in_short: Sequence[Child]
    sections: Sequence[Section]
    uses: Sequence[Use]
    step: int
    parameters: int


class Asked(NamedTuple):
    """What the user has asked for.

    Attributes:
      folder: of the run.
      places: prepared sets to take examples from; empty: those of the run.
      results: of an evaluation; None without one.
      out: folder of the page.
    """

    folder: pathlib.Path
    places: Sequence[str]
    results: Mapping[str, Any] | None
    out: pathlib.Path


def line(verdict: Verdict, *told: Child) -> Html:
    """Returns a line of what is said in short: the verdict, what it is about, and the reason."""
    between = " " if told else None
    return element("li", verdict.badge(), " ", *told, between, verdict.reason)


def curves(panels: Sequence[Panel], out: pathlib.Path, name: str) -> Html:
    """Returns panels for the page, and writes them side by side as a PNG file.

    Args:
      panels: at least one.
      out: folder of the page.
      name: of the file, without its ending.
    """
    (out / f"{name}.png").write_bytes(joined(panels))
    return panel_row(panels)


def panel_row(panels: Sequence[Panel]) -> Html:
    """Returns panels for the page, each in the colours of light and of dark screens."""
    shown = [
        figure(
            picture(drawn(panel, LIGHT), panel.alt, dark=drawn(panel, DARK)),
            element("strong", panel.title),
        )
        for panel in panels
    ]
    return element("div", shown, class_="panels")


def bar(value: float, baseline: float, largest: float) -> Html:
    """Returns a bar with a dashed line at a baseline.

    Args:
      value: length of the bar.
      baseline: place of the line.
      largest: value at the full width.
    """
    scale = 100 / max(largest, 1e-9)
    place = f"{baseline * scale:.2f}"
    return element(
        "svg",
        element("rect", class_="track", width=100, height=10),
        element("rect", class_="value", width=f"{value * scale:.2f}", height=10),
        element(
            "line",
            class_="base",
            x1=place,
            x2=place,
            y1=0,
            y2=10,
            vector_effect="non-scaling-stroke",
        ),
        viewBox="0 0 100 10",
        preserveAspectRatio="none",
        aria_hidden="true",
        class_="bar",
    )
