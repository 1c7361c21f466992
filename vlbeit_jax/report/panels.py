"""Draws panels with matplotlib, each for light and for dark screens, and several in one file.

Uses matplotlib's object interface, which never opens a window.
"""

import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

WIDTH, HEIGHT = 4.2, 3.2  # Inches.
DOTS_PER_INCH = 110
SHARP = 180  # For pages, which may enlarge a panel.


class Theme(NamedTuple):
    """Colours of a drawing. The lines can be told apart by whoever sees no red or no green."""

    page: str
    ink: str
    soft: str
    first: str
    second: str


LIGHT = Theme("#ffffff", "#1f2328", "#59636e", "#2563eb", "#c2410c")
DARK = Theme("#0d1117", "#e6edf3", "#9da7b3", "#5b9bff", "#ff9d5c")


@dataclasses.dataclass(frozen=True)
class Panel:
    """One drawing.

    Attributes:
      title: stands above it.
      alt: what it shows, for whoever cannot see it.
      draw: draws on axes, in the colours of a theme.
    """

    title: str
    alt: str
    draw: Callable[[Any, Theme], None]


def drawn(panel: Panel, theme: Theme) -> bytes:
    """Returns a panel as PNG, without its title."""
    figure = Figure(figsize=(WIDTH, HEIGHT))
    # Fixed margins, because matplotlib's layouts take as long as the drawing.
    figure.subplots_adjust(left=0.18, right=0.98, bottom=0.15, top=0.97)
    _draw(panel, figure.subplots(), theme)
    return _png(figure, theme, SHARP)


def joined(panels: Sequence[Panel]) -> bytes:
    """Returns panels side by side as PNG, each below its title, on white."""
    figure = Figure(figsize=(WIDTH * len(panels), HEIGHT + 0.2))
    wide = len(panels)
    figure.subplots_adjust(
        left=0.18 / wide, right=1 - 0.02 / wide, bottom=0.15, top=0.9, wspace=0.25
    )
    row = figure.subplots(1, wide, squeeze=False)[0]
    for axes, panel in zip(row, panels, strict=True):
        _draw(panel, axes, LIGHT)
        axes.set_title(panel.title)
    return _png(figure, LIGHT, DOTS_PER_INCH)


def _draw(panel: Panel, axes: Any, theme: Theme) -> None:
    panel.draw(axes, theme)
    axes.set_facecolor(theme.page)
    axes.grid(color=theme.soft, alpha=0.25)
    axes.tick_params(colors=theme.soft)
    for label in (axes.xaxis.label, axes.yaxis.label, axes.title):
        label.set_color(theme.ink)
    for name, spine in axes.spines.items():
        spine.set_color(theme.soft)
        spine.set_visible(name in ("left", "bottom"))
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=7.5, labelcolor=theme.ink, facecolor=theme.page, framealpha=0.8)


def picture(image: np.ndarray) -> bytes:
    """Returns one image as it is, as PNG."""
    return cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))[1].tobytes()


def grid(rows: Mapping[str, np.ndarray], below: Sequence[str]) -> bytes:
    """Returns images as PNG: one row per name, one column per image, texts below the last row."""
    count = len(next(iter(rows.values())))
    width, height = 1.25 * count + 0.5, 1.25 * len(rows) + 0.3
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(
        left=0.5 / width, right=0.995, bottom=0.25 / height, top=0.99, wspace=0.04, hspace=0.04
    )
    cells = figure.subplots(len(rows), count, squeeze=False)
    for axes_row, (title, images) in zip(cells, rows.items(), strict=True):
        for axes, image in zip(axes_row, images, strict=True):
            axes.imshow(image)
            axes.set(xticks=[], yticks=[])
        axes_row[0].set_ylabel(title, fontsize=8)
    for axes, text in zip(cells[-1], below, strict=True):
        axes.set_xlabel(text, fontsize=7)
    return _png(figure, LIGHT, DOTS_PER_INCH)


def _png(figure: Figure, theme: Theme, dots_per_inch: int) -> bytes:
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dots_per_inch, facecolor=theme.page)
    return buffer.getvalue()
