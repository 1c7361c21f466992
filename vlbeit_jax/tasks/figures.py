"""Figures of a run: what computes them, and which of them its log lines show."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

from vlbeit_jax.shapes import Tree
from vlbeit_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """One evaluation during training.

    Attributes:
      name: prefix of its figures in the log; "" for none.
      every: steps between evaluations; 0 for none.
      run: from the state and the frozen parameters on the devices to figures, the same on all
        hosts.
    """

    name: str
    every: int
    run: Callable[[TrainState, Tree], dict[str, float]]


class Baseline(NamedTuple):
    """What an answer without the input reaches: a figure ``TERM/NAME`` beside ``TERM/accuracy``.

    Attributes:
      answer: what is always answered.
      figure: what the figure is, as in "The share of the most frequent class is 20%".
    """

    answer: str
    figure: str


# By the name of the figure. If a term has several, the first one is shown: the best constant answer
# says more than a uniform guess.
BASELINES = {
    "unigram": Baseline("most frequent token", "share of the most frequent token"),
    "majority": Baseline("most frequent class", "share of the most frequent class"),
    "prior": Baseline("most frequent answer", "score of always giving the most frequent answer"),
    "chance": Baseline("chance", "share of a uniform guess"),
}


class Headline(NamedTuple):
    """A figure that log lines show. Losses and accuracies are shown without one.

    Attributes:
      figure: its name in ``metrics.jsonl``.
      label: its name in the line.
      share: it is between 0 and 1, and shown as a percentage.
      baseline: name of the figure that a guess would reach; empty: none.
    """

    figure: str
    label: str
    share: bool = False
    baseline: str = ""
