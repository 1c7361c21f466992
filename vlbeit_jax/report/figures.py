"""Figures of the report as PNG bytes.

They use matplotlib's object interface, which never opens a window.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vlbeit_jax.shapes import Int
from vlbeit_jax.tasks.masked_pictures import MaskedPictures

DOTS_PER_INCH = 110
TITLES = {
    "mim": "images alone: visual tokens",
    "mlm": "texts alone: word pieces",
    "mvlm_image": "pairs: visual tokens",
    "mvlm_text": "pairs: word pieces",
}


def accuracy_curves(metrics: Sequence[Mapping[str, Any]]) -> bytes | None:
    """Masked accuracy of every term over the steps, with its unigram baseline and chance."""
    terms = [term for term in TITLES if any(f"{term}/accuracy" in line for line in metrics)]
    if not terms:
        return None
    figure = Figure(figsize=(4.2 * len(terms), 3.4), layout="constrained")
    for axes, term in zip(figure.subplots(1, len(terms), squeeze=False)[0], terms, strict=True):
        for split, kind, style in (
            ("train", "accuracy", {"color": "tab:blue", "alpha": 0.5, "label": "training"}),
            ("validation", "accuracy", {"color": "tab:blue", "marker": "o", "label": "held back"}),
            (
                "validation",
                "unigram",
                {"color": "tab:red", "linestyle": "--", "label": "unigram baseline (held back)"},
            ),
            ("validation", "chance", {"color": "grey", "linestyle": ":", "label": "chance"}),
        ):
            _line(axes, metrics, split, f"{term}/{kind}", style, scale=100)
        axes.set(title=f"{term}\n{TITLES[term]}", xlabel="step", ylim=(0, None))
        axes.grid(alpha=0.3)
    axes = figure.axes[0]
    axes.set_ylabel("accuracy at masked positions, %")
    axes.legend(fontsize=7)
    return _png(figure)


def probe_curves(metrics: Sequence[Mapping[str, Any]]) -> bytes | None:
    """Accuracy of every probe of frozen features over the steps; None if there were no probes."""
    probes = [name for line in metrics for name in line if name.startswith("probe/")]
    # "probe/image/ridge": probes of images and of texts have a panel each.
    panels = sorted({name.split("/")[1] for name in probes if name.count("/") == 2})
    if not panels:
        return None
    figure = Figure(figsize=(4.2 * len(panels), 3.4), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name in dict.fromkeys(each for each in probes if each.startswith(f"probe/{panel}/")):
            label = name.split("/")[2]
            dotted = (
                {"color": "grey", "linestyle": ":"}
                if label == "majority" or label.startswith("chance")
                else {"marker": "o"}
            )
            _line(axes, metrics, "validation", name, {**dotted, "label": label}, scale=100)
        axes.set(title=f"frozen features: {panel}", xlabel="step", ylim=(0, None))
        axes.set_ylabel("accuracy, %")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    return _png(figure)


def loss_curves(metrics: Sequence[Mapping[str, Any]]) -> bytes | None:
    """Every loss, then gradient norm and learning rate."""
    losses = sorted({name for line in metrics for name in line if name.endswith("/loss")})
    if not losses:
        return None
    figure = Figure(figsize=(12.6, 3.4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for index, name in enumerate(losses):
        colour = f"C{index}"
        _line(left, metrics, "train", name, {"color": colour, "label": name.removesuffix("/loss")})
        _line(
            left, metrics, "validation", name, {"color": colour, "marker": "o", "linestyle": "none"}
        )
    left.legend(fontsize=7)
    _line(middle, metrics, "train", "grad_norm", {"color": "tab:blue"})
    _line(right, metrics, "train", "learning_rate", {"color": "tab:blue"})
    for axes, title in zip(
        (left, middle, right),
        ("loss (dots: held back)", "gradient norm", "learning rate"),
        strict=True,
    ):
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
    return _png(figure)


def codebook_use(counts: Int[np.ndarray, " C"], metrics: Sequence[Mapping[str, Any]]) -> bytes:
    """Use of each code on held-back images; codes in use and perplexity during its training."""
    figure = Figure(figsize=(12.6, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    share = np.sort(counts)[::-1] / max(counts.sum(), 1)
    left.bar(np.arange(len(share)), 100 * share, width=1.0)
    left.axhline(100 / len(share), color="tab:red", linestyle="--", label="even use")
    left.set(
        title=f"{(counts > 0).sum()} of {len(counts)} codes occur in held-back images",
        xlabel="code, by frequency",
        ylabel="% of patches",
    )
    _line(right, metrics, "train", "codes_used", {"color": "tab:blue", "label": "codes in use"})
    _line(right, metrics, "train", "perplexity", {"color": "tab:orange", "label": "perplexity"})
    right.axhline(len(counts), color="grey", linestyle=":", label="codebook size")
    right.set(
        title="codebook during training of the visual tokenizer", xlabel="step", ylim=(0, None)
    )
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    return _png(figure)


def picture_grid(found: MaskedPictures) -> bytes:
    """One column an image: original, masked, from its true tokens, from predicted tokens."""
    rows = {
        "original": found.original,
        "masked": found.masked,
        "from its own\nvisual tokens": found.through_tokens,
        "from predicted\nvisual tokens": found.predicted,
    }
    count = len(found.original)
    figure = Figure(figsize=(1.25 * count, 1.25 * len(rows) + 0.3), layout="constrained")
    grid = figure.subplots(len(rows), count, squeeze=False)
    for axes_row, (title, images) in zip(grid, rows.items(), strict=True):
        for axes, image in zip(axes_row, images, strict=True):
            axes.imshow(image)
            axes.set(xticks=[], yticks=[])
        axes_row[0].set_ylabel(title, fontsize=8)
    for axes, accuracy in zip(grid[-1], found.accuracy, strict=True):
        axes.set_xlabel(f"{accuracy:.0%} right", fontsize=7)
    return _png(figure)


def picture(image: np.ndarray) -> bytes:
    """One image as it is."""
    figure = Figure(figsize=(image.shape[1] / DOTS_PER_INCH, image.shape[0] / DOTS_PER_INCH))
    figure.figimage(image)
    return _png(figure)


def _line(
    axes: Any,
    metrics: Sequence[Mapping[str, Any]],
    split: str,
    name: str,
    style: Mapping[str, Any],
    scale: float = 1,
) -> None:
    points = [
        (line["step"], scale * line[name])
        for line in metrics
        if line["split"] == split and name in line
    ]
    if points:
        axes.plot(*zip(*points, strict=True), **style)


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH)
    return buffer.getvalue()
