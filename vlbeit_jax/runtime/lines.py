"""One line of figures: what a researcher looks for first, within the width of a terminal.

A line shows the step, each term's loss, its accuracy beside a baseline, what is wrong, and the time
left. All other figures are in ``metrics.jsonl``. The terms declare themselves by their names:
``TERM/loss``, ``TERM/accuracy``, and one of ``BASELINES``.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vlbeit_jax.tasks.figures import BASELINES, Headline

WIDTH = 160
SPLIT = 11  # Width of "validation:".
TAIL = 40  # What a spelt line leaves for problems and the time.
# Shares of time from which a line mentions the waiting.
SLOW = {"data_wait": ("data wait", 0.01), "checkpoint_wait": ("checkpoint wait", 0.1)}


class Item(NamedTuple):
    """A term or a figure of a line; None and "" stand for what it does not have."""

    name: str
    loss: float | None = None
    share: float | None = None
    value: float | None = None
    baseline: str = ""
    guess: float = 0.0


class Style(NamedTuple):
    """How much room a line takes.

    Attributes:
      spelt: "loss 3.981 accuracy 18.0% > unigram 2.6%" instead of "3.981 18.0% > 2.6".
      aligned: numbers stand below those of other lines.
      judged: accuracies have their baselines.
      between: terms.
    """

    spelt: bool = False
    aligned: bool = True
    judged: bool = True
    between: str = " | "


SPELT, ALIGNED = Style(spelt=True), Style()
TIGHT, BARE = Style(aligned=False), Style(aligned=False, judged=False, between="  ")


def line(
    step: int,
    steps: int,
    split: str,
    figures: Mapping[str, float],
    headlines: Sequence[Headline] = (),
    time: str = "",
) -> str:
    """Returns a line of at most ``WIDTH`` characters.

    Args:
      step: number of steps taken.
      steps: at which the run ends.
      split: where the figures come from.
      figures: by name.
      headlines: figures to show besides losses and accuracies. If there is none of all these, the
        line shows whatever there is.
      time: how long it will take, in words; empty: not known.
    """
    items = items_of(figures, headlines)
    tail = "".join(f" | {text}" for text in (*problems(figures), time) if text)
    styles = [SPELT] if is_spelt(items, steps) else []
    for style in (*styles, ALIGNED, TIGHT, BARE):
        shown = style.between.join(_item(each, style) for each in items)
        text = _head(step, steps, split, style) + shown
        if len(text + tail) <= WIDTH:
            return text + tail
    return _shortened(_head(step, steps, split, BARE), items, tail)


def _shortened(head: str, items: Sequence[Item], tail: str) -> str:
    """Returns a line with as many items as fit, and the number of the others."""
    shown = [_item(each, BARE) for each in items]
    for count in range(len(items) - 1, 0, -1):
        some = [*shown[:count], f"{len(items) - count} more"]
        text = head + BARE.between.join(some) + tail
        if len(text) <= WIDTH:
            return text
    return f"{head}{len(items)} terms{tail}"[:WIDTH]


def legend(figures: Mapping[str, float], headlines: Sequence[Headline], steps: int) -> str:
    """Returns what the numbers of a line mean; empty if the line spells it out."""
    items = items_of(figures, headlines)
    names = " or ".join(dict.fromkeys(item.baseline for item in items if item.baseline))
    if not names or is_spelt(items, steps):
        return ""
    losses = "its loss, " if any(item.loss is not None for item in items) else ""
    return f"each term below: {losses}its accuracy in %, > above or < below the {names} baseline"


def items_of(figures: Mapping[str, float], headlines: Sequence[Headline] = ()) -> list[Item]:
    """Returns what a line shows: terms in alphabetical order, then other figures."""
    terms: dict[str, dict[str, float]] = {}
    for name, value in figures.items():
        term, _, kind = name.rpartition("/")
        if term:
            terms.setdefault(term, {})[kind] = value
    items = [
        _term(term, kinds)
        for term, kinds in sorted(terms.items())
        if "loss" in kinds or "accuracy" in kinds
    ]
    items += [_headline(each, figures) for each in headlines if each.figure in figures]
    return items or [Item(name, value=value) for name, value in figures.items()]


def problems(figures: Mapping[str, float]) -> list[str]:
    """Returns what is wrong: refused steps, and waiting for data or checkpoints."""
    notes = []
    if refused := round(figures.get("refused", 0)):
        notes.append(f"{refused} refused")
    for name, (label, least) in SLOW.items():
        if figures.get(name, 0.0) >= least:
            notes.append(f"{label} {figures[name]:.0%}")
    return notes


def is_spelt(items: Sequence[Item], steps: int) -> bool:
    """Whether the terms of a line are spelt out, whatever their values are at a step."""
    typical = [
        item._replace(
            loss=item.loss and 1.0, share=item.share and 0.5, value=item.value and 1000.0, guess=0.5
        )
        for item in items
    ]
    head = _head(steps, steps, "", SPELT)
    return len(head + SPELT.between.join(_item(each, SPELT) for each in typical)) <= WIDTH - TAIL


def number(value: float) -> str:
    """Returns a value in five or six characters; from 0.1 to 99999 in five, to align the lines."""
    size = abs(value)
    for least, digits in ((1000, 0), (100, 1), (10, 2), (0.1, 3), (0.001, 4)):
        if least <= size < 99999.5:
            return f"{value:>5.{digits}f}"
    if size and size < 0.001:
        return f"{value:.1e}".replace("e-0", "e-")
    return f"{value:5.0e}" if math.isfinite(value) and size else f"{value:5.3f}"


def _term(name: str, kinds: Mapping[str, float]) -> Item:
    item = Item(name, loss=kinds.get("loss"), share=kinds.get("accuracy"))
    baseline = next((each for each in BASELINES if each in kinds), "")
    if item.share is None or not baseline:
        return item
    return item._replace(baseline=baseline, guess=kinds[baseline])


def _headline(each: Headline, figures: Mapping[str, float]) -> Item:
    value = figures[each.figure]
    if not each.share:
        return Item(each.label, value=value)
    item = Item(each.label, share=value)
    if each.baseline not in figures:
        return item
    # The label says already what is compared.
    kind = next((kind for kind in BASELINES if kind in each.baseline), "guess")
    return item._replace(baseline=kind, guess=figures[each.baseline])


def _head(step: int, steps: int, split: str, style: Style) -> str:
    if not style.aligned:
        return f"step {step}/{steps} {split}: "
    return f"step {step:>{len(str(steps))}}/{steps} {split + ':':{SPLIT}} "


def _item(item: Item, style: Style) -> str:
    words = [item.name]
    if item.loss is not None:
        words += ["loss"] * style.spelt + [number(item.loss)]
    if item.share is not None:
        words += ["accuracy"] * (style.spelt and item.loss is not None)
        words.append(_percent(item.share, style) + "%")
        if item.baseline and style.judged:
            words += [_compared(item), *[item.baseline] * style.spelt]
            words.append(_percent(item.guess, style) + "%" * style.spelt)
    if item.value is not None:
        words.append(f"{item.value:.4g}")
    return " ".join(words)


def _percent(share: float, style: Style) -> str:
    percent = 100 * share
    text = f"{percent:.2f}" if 0 < percent < 1 else f"{percent:.1f}"
    return f"{text:>4}" if style.aligned else text


def _compared(item: Item) -> str:
    assert item.share is not None
    if item.share > item.guess:
        return ">"
    return "<" if item.share < item.guess else "="
