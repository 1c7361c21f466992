"""A task over the three folds of the emoji: its sets, its answers, and the rate of each fold."""

import dataclasses
import pathlib
import shutil
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tools.emoji.folds import FOLDS
from tools.emoji.sets import make
from tools.transfer.choosing import Chosen, choose
from tools.transfer.fit import PRETRAINED, RANDOM, STARTS, Fit, Scores, tried, whole_mesh
from tools.transfer.results import comparison
from vlbeit_jax.data.examples.labelled import as_text
from vlbeit_jax.data.identity import TEST, VALIDATION
from vlbeit_jax.data.records import Records
from vlbeit_jax.data.source import PreparedSet, open_set
from vlbeit_jax.runtime.finetuned import FineTunedRun
from vlbeit_jax.shapes import Float
from vlbeit_jax.types import Kind

Record = Mapping[str, Any]
SOURCE = "sample:emoji"


@dataclasses.dataclass(frozen=True)
class Rows:
    """The tested rows; each is tested in one fold.

    Attributes:
      ids: the ``id`` of each row's record.
      groups: the group of near-duplicates of each row.
    """

    ids: list[str]
    groups: np.ndarray

    def numbered(self, by_id: Mapping[str, Any]) -> Float[np.ndarray, " A"]:
        """Returns a figure for each row: its value in ``by_id``, or 0 if it has none there."""
        return np.array([float(by_id.get(each, 0)) for each in self.ids])


def _nothing_more(run: FineTunedRun, records: Records) -> dict[str, Any]:
    return {}


@dataclasses.dataclass(frozen=True)
class FoldTask:
    """See ``fit.StudyTask``. Each run's answers are stored, and ``pictures`` shows them.

    Attributes:
      name: name of the task.
      kind: kind of its sets.
      stream: stream of the configuration that reads the sets.
      rates: learning rates of each start.
      settled: the rate of each start that validation chose for most folds.
      said: name of the answer in a prediction.
      right: takes a record and an answer, and returns 1 if the answer is right, else 0.
      more: takes a run and the test records, and returns further answers to store, by name.
      floors: takes the sets and the rows, and returns by name whether answers that need no network
        are right.
      source: the set in the package from which the sets are made.
    """

    name: str
    kind: Kind
    stream: str
    rates: dict[str, tuple[float, ...]]
    settled: dict[str, float]
    said: str
    right: Callable[[Record, str], float]
    floors: Callable[[list[PreparedSet], Rows], dict[str, Float[np.ndarray, " A"]]]
    more: Callable[[FineTunedRun, Records], dict[str, Any]] = _nothing_more
    source: str = SOURCE

    def prepare(self, folder: pathlib.Path) -> None:
        """Makes the sets of all folds, each whole or not at all.

        All are made, because only that shows whether those in the folder still are what
        ``tools.emoji.sets`` makes. A set with the same records stays.
        """
        for fold in range(FOLDS):
            out = self._place(folder, fold)
            new = out.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            new.parent.mkdir(parents=True, exist_ok=True)
            made = make(self.kind, fold, new)
            if out.is_dir() and self._open(folder, fold).fingerprint == made["fingerprint"]:
                shutil.rmtree(new)
                continue
            shutil.rmtree(out, ignore_errors=True)
            new.replace(out)

    def data(self, folder: pathlib.Path, part: int) -> dict[str, Any]:
        """Returns the settings that name the set of fold ``part``."""
        return {self.stream: {"sources": [str(self._place(folder, part))]}}

    def answers(self, run: FineTunedRun, folder: pathlib.Path, part: int) -> dict[str, Any]:
        """Returns by split and id whether the run's answer is right, and the answer."""
        found = self._open(folder, part)
        kept = {split: self._judged(run, found.records(split)) for split in (VALIDATION, TEST)}
        return kept | self.more(run, found.records(TEST))

    def _judged(self, run: FineTunedRun, records: Records) -> dict[str, Any]:
        """Returns, by id, whether the answers to some records are right, and the answers."""
        said = [each[self.said] for each in run.predict(records, 1, whole_mesh())]
        listed = [records[number] for number in range(len(records))]
        return {
            as_text(record["id"]): [self.right(record, answer), answer]
            for record, answer in zip(listed, said, strict=True)
        }

    def scores(self, found: dict[Fit, Any], start: str, folder: pathlib.Path) -> Scores:
        """Returns whether the answers from a start are right; each group counts once."""
        rows = rows_tested([self._open(folder, fold) for fold in range(FOLDS)])
        right = self._chosen(found, start, rows).right
        return Scores(right, rows.groups, "accuracy_by_group", each_group_once=True, seeds=FOLDS)

    def results(self, found: dict[Fit, Any], folder: pathlib.Path) -> dict[str, Any]:
        """Returns the comparison of both starts, each with the rates chosen on validation."""
        sets = [self._open(folder, fold) for fold in range(FOLDS)]
        rows = rows_tested(sets)
        chosen = {start: self._chosen(found, start, rows) for start in STARTS}
        floors = self.floors(sets, rows)
        more = {start: self._chosen_answers(found, start, chosen[start]) for start in STARTS}
        for name in more[PRETRAINED][0].keys() - {VALIDATION, TEST}:
            for start in STARTS:
                by_id: dict[str, Any] = {}
                for answers in more[start]:
                    by_id |= answers[name]
                floors[f"{name}_{start}"] = rows.numbered(_right(by_id))
        one, other = chosen[PRETRAINED].right, chosen[RANDOM].right
        return {
            "results": {self.name: comparison(one, other, floors, rows.groups, FOLDS)},
            "protocol": {
                "data": [each.fingerprint for each in sets],
                "rows": len(rows.ids),
                "groups": len(set(rows.groups)),
                "rates": {
                    start: each.told(tried(found, start, self.rates[start]))
                    for start, each in chosen.items()
                },
            },
        }

    def _chosen_answers(self, found: dict[Fit, Any], start: str, chosen: Chosen) -> list[Any]:
        """Returns the answers of each fold's run with the chosen rate."""
        rates = tried(found, start, self.rates[start])
        return [found[Fit(start, rates[n], fold)] for fold, n in enumerate(chosen.settings)]

    def _chosen(self, found: dict[Fit, Any], start: str, rows: Rows) -> Chosen:
        rates = tried(found, start, self.rates[start])
        shape = (len(rates), len(rows.ids))
        checked, tested, asked = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        times = np.zeros(len(rows.ids))
        for number, rate in enumerate(rates):
            for fold in range(FOLDS):
                answers = found[Fit(start, rate, fold)]
                checked[number] += rows.numbered(_right(answers[VALIDATION]))
                tested[number] += rows.numbered(_right(answers[TEST]))
                asked[number] += rows.numbered(dict.fromkeys(answers[TEST], 1))
                if number == 0:
                    times += rows.numbered(dict.fromkeys(answers[VALIDATION], 1))
        assert (asked == 1).all(), "each row is tested once"
        return choose(checked, times, tested, rows.groups)

    def _place(self, folder: pathlib.Path, fold: int) -> pathlib.Path:
        return folder / "sets" / str(fold)

    def _open(self, folder: pathlib.Path, fold: int) -> PreparedSet:
        return open_set(str(self._place(folder, fold)), self.kind)


def _right(answers: Mapping[str, Any]) -> dict[str, float]:
    return {name: right for name, (right, _) in answers.items()}


def rows_tested(sets: list[PreparedSet]) -> Rows:
    """Returns the test rows of all folds."""
    records = [record for each in sets for record in records_of(each, TEST)]
    groups = np.array([as_text(record["group"]) for record in records])
    return Rows([as_text(record["id"]) for record in records], groups)


def records_of(found: PreparedSet, split: str) -> list[Record]:
    """Returns the records of a split."""
    records = found.records(split)
    return [records[number] for number in range(len(records))]
