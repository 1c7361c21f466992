"""Accuracies at masked positions and cross-modal gains, each with its verdict."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from vlbeit_jax.errors import UsageError
from vlbeit_jax.report import words
from vlbeit_jax.report.content import bar, line
from vlbeit_jax.report.markup import Child, Html, between, definitions, element, note, table
from vlbeit_jax.report.verdicts import Level, Verdict, bounds_of
from vlbeit_jax.runtime.hooks.evaluate import VALIDATION
from vlbeit_jax.runtime.metrics_file import last_figures
from vlbeit_jax.runtime.pretrained import GAINS, OpenedRun
from vlbeit_jax.tasks.pretrain import Pretrain

EVALUATE = "python -m vlbeit_jax.evaluate --from=RUN --data=SET --json=FILE"


@dataclasses.dataclass(frozen=True)
class Results:
    """The figures of a run on held-out records.

    Attributes:
      task: of the run.
      terms: figures by term: accuracy, chance, unigram, loss, count.
      gains: value, low and high by gain.
      draws: masks of each record.
      step: at which the figures were measured; None: there are none.
      newest: step of the newest checkpoint.
      evaluated: whether they come from an evaluation, and not from the run's own log.
    """

    task: Pretrain
    terms: Mapping[str, Mapping[str, Any]]
    gains: Mapping[str, Mapping[str, float]]
    draws: int
    step: int | None
    newest: int
    evaluated: bool

    @classmethod
    def of(
        cls,
        run: OpenedRun,
        results: Mapping[str, Any] | None,
        metrics: Sequence[Mapping[str, Any]],
    ) -> "Results":
        """Returns the figures of an evaluation, or else the last ones of the run's log.

        Args:
          run: of pretraining.
          results: of an evaluation; None without one.
          metrics: of the run.

        Raises:
          UsageError: the results hold no figures of pretraining.
        """
        task = run.model.task
        if results is not None:
            terms = {name: results[name] for name in words.TITLES if results.get(name)}
            if not terms:
                raise UsageError(
                    f"--results holds none of {', '.join(words.TITLES)}; for a pretraining run, "
                    "give what vlbeit_jax.evaluate --from=RUN wrote"
                )
            gains = {name: results[name] for name in GAINS if results.get(name)}
            draws, step = results.get("draws", 1), results.get("step", run.step)
            return cls(task, terms, gains, draws, step, run.step, True)
        # The last step of the log may have figures of probes only.
        titles = [f"{name}/accuracy" for name in words.TITLES]
        scored = [each for each in metrics if any(title in each for title in titles)]
        last = last_figures(scored, VALIDATION)
        terms = {
            name: {kind.removeprefix(f"{name}/"): value for kind, value in last.items()}
            for name in words.TITLES
            if f"{name}/accuracy" in last
        }
        return cls(task, terms, {}, 1, last.get("step"), run.step, False)

    @property
    def pairs_are_trained(self) -> bool:
        """Returns whether the run was trained on pairs."""
        return "pair" in self.task.used_streams

    def verdict(self, name: str) -> Verdict:
        """Returns what the accuracy of a term says."""
        figures = self.terms[name]
        trained = words.BY_NAME[name].stream in self.task.used_streams
        return words.accuracy_verdict(name, figures, bounds_of(figures, self.draws), trained)

    def gain_verdict(self, name: str) -> Verdict:
        """Returns what a gain says."""
        return words.gain_verdict(name, self.gains[name], self.pairs_are_trained)

    def in_short(self) -> list[Html]:
        """Returns a line for each figure that says something about the training."""
        lines = [line(each) for each in self._cautions()]
        for name, term in self.terms.items():
            verdict = self.verdict(name)
            if verdict.level is not Level.NONE:
                told = f": {term['accuracy']:.1%} right."
                lines.append(line(verdict, element("strong", words.TITLES[name]), told))
        for name, gain in self.gains.items():
            if self.pairs_are_trained:
                told = f": {100 * gain['value']:+.2f} points."
                title = element("strong", words.GAIN_TITLES[name])
                lines.append(line(self.gain_verdict(name), title, told))
        return lines

    def _cautions(self) -> list[Verdict]:
        if self.step is None:
            reason = f"This run was not evaluated. Run {EVALUATE}, then give --results."
            return [Verdict(Level.UNCLEAR, "no figures", reason)]
        if self.step == self.newest:
            return []
        reason = (
            f"The figures are of step {self.step:,}, but the newest checkpoint is of step "
            f"{self.newest:,}."
        )
        return [Verdict(Level.UNCLEAR, "another step", reason)]

    def warnings(self) -> list[Html]:
        """Returns what a reader must know before the figures."""
        shown = [element("p", each.cell()) for each in self._cautions()]
        if self.step is not None and not self.evaluated:
            reason = (
                "The figures are the last ones of the run's own log, with one mask per record. For "
                "more exact ones, and for what pictures and captions add to each other, run "
                f"{EVALUATE}, then give --results."
            )
            shown.append(note(reason))
        return shown

    def glossary(self) -> Html:
        """Returns the words of the tables with their meaning."""
        return definitions(words.glossary(self.task, self.task.used_streams))


def term_table(results: Results) -> Html | None:
    """Returns a row per term, with its accuracy, baselines and verdict."""
    if not results.terms:
        return None
    largest = 1.15 * max(figures["accuracy"] for figures in results.terms.values())
    head = ("What is predicted", "Accuracy", "Unigram baseline", "Chance", "Loss", "Verdict")
    exact = all("accuracy_interval" in figures for figures in results.terms.values())
    interval = (
        "with its 95% interval"
        if exact
        else "with an approximate 95% interval, as if all places were independent of each other"
    )
    caption = (
        f"Accuracy at hidden places of held-out records, {interval}. The bar is the accuracy, its "
        "dashed line the unigram baseline."
    )
    rows = [_term_row(results, name, largest) for name in results.terms]
    return table(caption, head, rows)


def _term_row(results: Results, name: str, largest: float) -> list[Child]:
    figures = results.terms[name]
    bounds = bounds_of(figures, results.draws)
    places = f"{figures['count']:,} places" if "count" in figures else "places not counted"
    return [
        [
            element("strong", words.TITLES[name]),
            " ",
            element("code", name),
            element("span", words.meaning(name, results.task), class_="note"),
        ],
        [
            element("strong", f"{figures['accuracy']:.2%}"),
            bar(figures["accuracy"], figures["unigram"], largest),
            element("span", between(f"{bounds.low:.2%}", f"{bounds.high:.2%}"), class_="note"),
            element("span", places, class_="note"),
        ],
        f"{figures['unigram']:.2%}",
        f"{figures['chance']:.3%}",
        f"{figures['loss']:.3f}",
        results.verdict(name).cell(),
    ]


def gain_table(results: Results) -> Html:
    """Returns a row per cross-modal gain, with its interval and verdict."""
    if not results.gains:
        return note(f"Not measured. Run {EVALUATE} with pairs as SET, then give --results.")
    rows = [
        [
            [
                element("strong", words.GAIN_TITLES[name]),
                " ",
                element("code", name),
                element("span", words.GAIN_MEANINGS[name], class_="note"),
            ],
            element("strong", f"{100 * gain['value']:+.2f}\N{NO-BREAK SPACE}points"),
            between(f"{100 * gain['low']:+.2f}", f"{100 * gain['high']:+.2f}"),
            results.gain_verdict(name).cell(),
        ]
        for name, gain in results.gains.items()
    ]
    caption = (
        "Cross-modal gain: what the right partner adds, in points of accuracy, with equal masks"
    )
    return table(caption, ("What is compared", "Gain", "95% interval", "Verdict"), rows)
