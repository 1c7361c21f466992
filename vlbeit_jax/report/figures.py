"""The curves of a run, as panels."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vlbeit_jax.report.panels import Panel, Theme
from vlbeit_jax.report.words import TITLES
from vlbeit_jax.shapes import Int

Metrics = Sequence[Mapping[str, Any]]


def accuracy_panels(metrics: Metrics) -> list[Panel]:
    """Returns the masked accuracy of every term over the steps, with its baselines."""
    terms = [term for term in TITLES if any(f"{term}/accuracy" in line for line in metrics)]
    return [_accuracy_panel(metrics, term, TITLES[term]) for term in terms]


def _accuracy_panel(metrics: Metrics, term: str, title: str) -> Panel:
    name = f"{term}/accuracy"
    split = "validation" if _points(metrics, "validation", name) else "train"
    alt = f"{title}: accuracy {_course(metrics, split, name)}"
    if baseline := _points(metrics, split, f"{term}/unigram"):
        alt += f", unigram baseline {baseline[-1][1]:.1%} at the end"
    return Panel(f"{title} ({term})", alt, functools.partial(_draw_accuracy, metrics, term))


def _draw_accuracy(metrics: Metrics, term: str, axes: Any, theme: Theme) -> None:
    for split, kind, style in (
        (
            "train",
            "accuracy",
            {"color": theme.first, "alpha": 0.45, "label": "training"},
        ),
        ("validation", "accuracy", {"color": theme.first, "marker": "o", "label": "held out"}),
        (
            "validation",
            "unigram",
            {"color": theme.second, "linestyle": "--", "label": "unigram baseline (held out)"},
        ),
        ("validation", "chance", {"color": theme.soft, "linestyle": ":", "label": "chance"}),
    ):
        _line(axes, metrics, split, f"{term}/{kind}", style, scale=100)
    axes.set(xlabel="step", ylim=(0, None), ylabel="accuracy, %")


def probe_panels(metrics: Metrics) -> list[Panel]:
    """Returns the accuracy of the probes of frozen features over the steps, a panel per kind."""
    probes = [name for line in metrics for name in line if name.startswith("probe/")]
    # "probe/image/ridge": probes of images and of texts have a panel each.
    kinds = sorted({name.split("/")[1] for name in probes if name.count("/") == 2})
    return [_probe_panel(metrics, kind, probes) for kind in kinds]


def _probe_panel(metrics: Metrics, kind: str, probes: Sequence[str]) -> Panel:
    names = [each for each in dict.fromkeys(probes) if each.startswith(f"probe/{kind}/")]
    told = (f"{name.split('/')[2]} {_course(metrics, 'validation', name)}" for name in names)
    alt = f"Probes of frozen features, {kind}: {'; '.join(told)}"
    return Panel(f"Frozen features: {kind}", alt, functools.partial(_draw_probes, metrics, names))


def _draw_probes(metrics: Metrics, names: Sequence[str], axes: Any, theme: Theme) -> None:
    for name in names:
        label = name.split("/")[2]
        style: dict[str, Any] = {"marker": "o"}
        if label == "majority" or label.startswith("chance"):
            style = {"color": theme.soft, "linestyle": ":"}
        _line(axes, metrics, "validation", name, {**style, "label": label}, scale=100)
    axes.set(xlabel="step", ylim=(0, None), ylabel="accuracy, %")


def loss_panels(metrics: Metrics) -> list[Panel]:
    """Returns every loss in one panel, then gradient norm and learning rate."""
    losses = sorted({name for line in metrics for name in line if name.endswith("/loss")})
    if not losses:
        return []
    told = "; ".join(
        f"{name.removesuffix('/loss')} {_course(metrics, 'train', name, '.3g')}" for name in losses
    )
    panels = [Panel("Loss", f"Losses: {told}", functools.partial(_draw_losses, metrics, losses))]
    for name, title in (("grad_norm", "Gradient norm"), ("learning_rate", "Learning rate")):
        alt = f"{title} {_course(metrics, 'train', name, '.3g')}"
        draw = functools.partial(_draw_one, metrics, name)
        panels.append(Panel(title, alt, draw))
    return panels


def _draw_losses(metrics: Metrics, losses: Sequence[str], axes: Any, theme: Theme) -> None:
    for number, name in enumerate(losses):
        style = {"color": f"C{number}", "label": name.removesuffix("/loss")}
        _line(axes, metrics, "train", name, style)
        held_out = {"color": f"C{number}", "marker": "o", "linestyle": "none", "markersize": 4}
        _line(axes, metrics, "validation", name, held_out)
    axes.set(xlabel="step", ylabel="loss (dots: held out)")


def _draw_one(metrics: Metrics, name: str, axes: Any, theme: Theme) -> None:
    _line(axes, metrics, "train", name, {"color": theme.first})
    axes.set(xlabel="step")


def codebook_panels(counts: Int[np.ndarray, " C"], metrics: Metrics) -> list[Panel]:
    """Returns the use of each code on held-out images, and over the training of the codebook."""
    used, share = int((counts > 0).sum()), np.sort(counts)[::-1] / max(counts.sum(), 1)
    alt = (
        f"{used} of {len(counts)} visual tokens occur; the most frequent one in "
        f"{share[0]:.1%} of the patches, an even use would be {1 / len(counts):.2%}"
    )
    panels = [Panel("Use on held-out pictures", alt, functools.partial(_draw_shares, share))]
    if _points(metrics, "train", "codes_used"):
        course = (
            f"Over the training of the visual tokenizer: tokens in use "
            f"{_course(metrics, 'train', 'codes_used', '.0f')}, perplexity "
            f"{_course(metrics, 'train', 'perplexity', '.0f')}"
        )
        draw = functools.partial(_draw_codes, metrics, len(counts))
        panels.append(Panel("While the visual tokenizer was trained", course, draw))
    return panels


def _draw_shares(share: np.ndarray, axes: Any, theme: Theme) -> None:
    axes.bar(np.arange(len(share)), 100 * share, width=1.0, color=theme.first)
    even = {"color": theme.second, "linestyle": "--", "label": "even use"}
    axes.axhline(100 / len(share), **even)
    axes.set(xlabel="visual token, most frequent first", ylabel="% of patches")


def _draw_codes(metrics: Metrics, codes: int, axes: Any, theme: Theme) -> None:
    _line(axes, metrics, "train", "codes_used", {"color": theme.first, "label": "tokens in use"})
    style = {"color": theme.second, "linestyle": "--", "label": "perplexity"}
    _line(axes, metrics, "train", "perplexity", style)
    axes.axhline(codes, color=theme.soft, linestyle=":", label="all tokens")
    axes.set(xlabel="step", ylim=(0, None))


def _points(metrics: Metrics, split: str, name: str) -> list[tuple[int, float]]:
    return [
        (line["step"], line[name]) for line in metrics if line["split"] == split and name in line
    ]


def _course(metrics: Metrics, split: str, name: str, form: str = ".1%") -> str:
    """Returns the first and the last value of a curve in words."""
    points = [(step, value) for step, value in _points(metrics, split, name) if value == value]
    if not points or any(math.isinf(value) for _, value in points):
        return "without finite values"
    (first, begin), (last, end) = points[0], points[-1]
    if first == last:
        return f"{begin:{form}} at step {first:,}"
    return f"from {begin:{form}} at step {first:,} to {end:{form}} at step {last:,}"


def _line(
    axes: Any,
    metrics: Metrics,
    split: str,
    name: str,
    style: Mapping[str, Any],
    scale: float = 1,
) -> None:
    if points := _points(metrics, split, name):
        steps, values = zip(*points, strict=True)
        axes.plot(steps, scale * np.asarray(values, float), **style)
