"""The figures of a fine-tuned run, each with its baseline and its verdict."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vlbeit_jax.report.content import bar
from vlbeit_jax.report.markup import Child, element
from vlbeit_jax.report.verdicts import Bounds, Level, Verdict, above
from vlbeit_jax.runtime.hooks.evaluate import VALIDATION
from vlbeit_jax.runtime.metrics_file import last_figures
from vlbeit_jax.tasks.figures import BASELINES, Baseline

# By metric: its name in words.
NAMES = {
    "accuracy": "Right at the first guess",
    "top5": "Right class among the best five",
    "mean_class": "Mean accuracy of the classes",
    "consistency": "All pictures of a statement right",
    "miou": "mIoU: overlap of the model's masks and those of people, mean over classes",
    "pixel_accuracy": "Right pixels",
    "cider": "CIDEr-D: agreement with the captions that people wrote, from 0 to 10",
}
# Baselines of figures other than accuracies, as ``BASELINES``.
OTHER_BASELINES = {
    "miou": {"miou_majority": Baseline("one class everywhere", "figure of one class everywhere")},
    "pixel_accuracy": {
        "pixel_accuracy_majority": Baseline(
            "one class everywhere", "share of the most frequent class"
        )
    },
    "cider": {
        "cider_wrong_picture": Baseline(
            "the same captions for wrong pictures", "score of the same captions for wrong pictures"
        )
    },
}
PERCENT, STYLES = "{:.2%}", {"cider": "{:.3f}"}  # How values are written.
RECALL = re.compile(r"(retrieval|reranked)/(image_to_text|text_to_image)/recall_(\d+)")
DIRECTIONS = {
    "image_to_text": "A caption of the picture is among the best {}",
    "text_to_image": "The picture of the caption is among the best {}",
}


class Judged(NamedTuple):
    """A figure that says how good the answers are.

    Attributes:
      name: in the results.
      title: its name in words.
      value: a share of right answers, or a score.
      bounds: of its 95% interval; None if it is not known.
      baseline: value that an answer reaches without the input; None if it is not known.
      verdict: whether the value is above the baseline.
    """

    name: str
    title: str
    value: float
    bounds: Bounds | None
    baseline: float | None
    verdict: Verdict

    def shown(self, value: float) -> str:
        """Returns a value of this figure as it is written."""
        return STYLES.get(self.name, PERCENT).format(value)

    def row(self, largest: float) -> list[Child]:
        """Returns the cells of its row: title, value, baseline, verdict.

        Args:
          largest: value at the full width of a bar.
        """
        interval, baseline = None, self.baseline
        if self.bounds:
            low, high = map(self.shown, self.bounds[:2])
            interval = f"95% interval {low} to {high}"
        return [
            [element("strong", self.title), " ", element("code", self.name)],
            [
                element("strong", self.shown(self.value)),
                None if baseline is None else bar(self.value, baseline, largest),
                None if interval is None else element("span", interval, class_="note"),
            ],
            "not known" if baseline is None else self.shown(baseline),
            self.verdict.cell(),
        ]


def is_judged(name: str) -> bool:
    """Returns whether a figure says by itself how good the answers are."""
    return name in NAMES or RECALL.fullmatch(name) is not None


def judged(results: Mapping[str, Any] | None, metrics: Sequence[Mapping[str, Any]]) -> list[Judged]:
    """Returns the figures of an evaluation, or else the last ones of the run's log.

    Args:
      results: of an evaluation; None without one.
      metrics: of the run.
    """
    figures = dict(results["metrics"]) if results else _last(metrics)
    chance = (results or {}).get("chance", {})
    return [_judged(name, figures, chance) for name in figures if is_judged(name)]


def _judged(name: str, figures: Mapping[str, Any], chance: Mapping[str, float]) -> Judged:
    interval = figures.get(f"{name}_interval")
    bounds = Bounds(*interval, exact=True) if interval else None
    if recall := RECALL.fullmatch(name):
        title, told = DIRECTIONS[recall[2]].format(recall[3]), "share of a random order"
        if recall[1] == "reranked":
            title += ", after matching"
        order = name.partition("/")[2]
        # An evaluation keeps the shares of a random order apart, and the log calls them "chance".
        baseline = chance.get(order, figures.get(f"chance/{order}"))
    else:
        floors = BASELINES if name == "accuracy" else OTHER_BASELINES.get(name, {})
        floor = next((each for each in floors if each in figures), None)
        title, told = NAMES[name], floors[floor].figure if floor else ""
        baseline = figures[floor] if floor else None
        if f"{name}_chance" in figures:
            baseline, told = figures[f"{name}_chance"], "share that a coin reaches"
    verdict = _verdict(figures[name], bounds, baseline, told, STYLES.get(name, "{:.1%}"))
    return Judged(name, title, figures[name], bounds, baseline, verdict)


def _verdict(
    value: float, bounds: Bounds | None, baseline: float | None, told: str, style: str
) -> Verdict:
    if baseline is None:
        return Verdict(Level.NONE, "no baseline", "")
    floor = style.format(baseline)
    if bounds is None and value > baseline:
        reason = f"The {told} is {floor}. The log has no interval; an evaluation gives one."
        return Verdict(Level.UNCLEAR, "above its baseline, no interval", reason)
    verdict = above(value, bounds or Bounds(value, value, exact=False), baseline, told, style)
    if verdict.level is not Level.BAD:
        return verdict
    reason = f"The {told} is {floor}: whoever ignores the input is right as often."
    return Verdict(Level.BAD, "not above its baseline", reason)


def _last(metrics: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns the last held-out figures of the log, by the names of an evaluation."""
    return {
        name if name.count("/") > 1 else name.rpartition("/")[2]: value
        for name, value in last_figures(metrics, VALIDATION).items()
    }
