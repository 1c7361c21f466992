"""Verdicts: whether a figure shows what one hopes for, in a sign, a colour and words."""

import dataclasses
import enum
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from vlbeit_jax.report.markup import Html, element


class Level(enum.StrEnum):
    """What a figure says; the values are also classes of the style."""

    GOOD = "good"
    UNCLEAR = "unclear"
    BAD = "bad"
    NONE = "none"


# The sign and the words say the same as the colour, for whoever does not see it.
SIGNS = {Level.GOOD: "✓", Level.UNCLEAR: "?", Level.BAD: "✗", Level.NONE: "–"}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a figure says.

    Attributes:
      level: good, unclear, bad, or none: there is nothing to judge.
      short: a few words.
      reason: one or two sentences.
    """

    level: Level
    short: str
    reason: str

    def badge(self) -> Html:
        """Returns sign and words in the colour of the level."""
        return element("span", f"{SIGNS[self.level]} {self.short}", class_=f"verdict {self.level}")

    def cell(self) -> Html:
        """Returns the badge with its reason below."""
        return Html(self.badge() + element("span", self.reason, class_="reason"))


class Bounds(NamedTuple):
    """Of a 95% interval.

    Attributes:
      low: lower bound.
      high: upper bound.
      exact: whether a bootstrap gave them; otherwise they follow from the number of answers, as if
        those were independent of each other, and are too close to each other.
    """

    low: float
    high: float
    exact: bool


def bounds_of(figures: Mapping[str, Any], draws: int = 1) -> Bounds:
    """Returns the interval of an accuracy.

    Args:
      figures: figures with ``accuracy``, and with ``accuracy_interval`` or ``count``.
      draws: how often each record was counted.
    """
    if "accuracy_interval" in figures:
        return Bounds(*figures["accuracy_interval"], exact=True)
    accuracy, count = figures["accuracy"], max(figures.get("count", 0) / draws, 1)
    margin = 1.96 * math.sqrt(max(accuracy * (1 - accuracy), 0) / count)
    return Bounds(max(accuracy - margin, 0.0), min(accuracy + margin, 1.0), exact=False)


def level(value: float, low: float, baseline: float) -> Level:
    """Returns whether a value is above a baseline.

    Args:
      value: of the model.
      low: lower bound of its interval.
      baseline: to compare with.
    """
    if not value > baseline:  # NaN is not above anything.
        return Level.BAD
    return Level.GOOD if low > baseline else Level.UNCLEAR


def above(
    value: float, bounds: Bounds, baseline: float, name: str, style: str = "{:.1%}"
) -> Verdict:
    """Returns whether an accuracy is above a baseline, and how far.

    Args:
      value: the accuracy, or another figure that is better the larger it is.
      bounds: of its interval.
      baseline: the accuracy that it is compared with.
      name: of the baseline, such as "unigram baseline".
      style: how values are written; in a close comparison, shares have one more digit.
    """
    reached = level(value, bounds.low, baseline)
    if reached is Level.GOOD:
        far = f"{value / baseline:.1f} times" if baseline else "above"
        return Verdict(
            reached, "above its baseline", f"It is {far} the {name} of {style.format(baseline)}."
        )
    if reached is Level.UNCLEAR:
        close = style.replace(".1%", ".2%")
        low, high, floor = (close.format(each) for each in (bounds.low, bounds.high, baseline))
        reason = (
            f"The 95% interval ({low} to {high}) holds the {name} of {floor}, so the difference "
            "may be chance."
        )
        return Verdict(reached, "not clearly above its baseline", reason)
    return Verdict(reached, f"not above its {name}", "")


def gain(
    value: Mapping[str, float], good: str, unclear: str, bad: str, what: str = "this run"
) -> Verdict:
    """Returns whether the interval of a gain lies above 0.

    Args:
      value: with value, low and high.
      good: what an interval above 0 shows.
      unclear: what an interval that holds 0 does not show.
      bad: what an interval below 0 shows.
      what: what has been measured.
    """
    if value["low"] > 0:
        return Verdict(Level.GOOD, "above 0", good)
    if value["high"] < 0:
        return Verdict(Level.BAD, "below 0", bad)
    reason = f"The interval holds 0: {what} does not show that {unclear}."
    return Verdict(Level.UNCLEAR, "not shown", reason)
