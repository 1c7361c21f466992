"""Segmentation of emoji on plain backgrounds: the class of each pixel, or background."""

import base64
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tools.emoji.folds import FOLDS
from tools.transfer.by_folds import FoldTask, Rows, records_of, rows_tested
from tools.transfer.choosing import folds_of
from tools.transfer.fit import PRETRAINED, RANDOM, STARTS, Fit, Scores, tried, whole_mesh
from tools.transfer.floors import small
from vlbeit_jax.data.examples.labelled import as_text
from vlbeit_jax.data.examples.segmented import mask_of
from vlbeit_jax.data.identity import TEST, TRAIN, VALIDATION
from vlbeit_jax.data.image import decode
from vlbeit_jax.data.masks import mask_bytes
from vlbeit_jax.data.records import Records
from vlbeit_jax.data.source import PreparedSet
from vlbeit_jax.metrics.probes import nearest_neighbours
from vlbeit_jax.metrics.segmentation import Pixels, counts, joined, summary
from vlbeit_jax.runtime.finetuned import FineTunedRun
from vlbeit_jax.types import Kind

SHOWN = 10  # Predicted masks that are stored for the page.
MASKS = "masks"  # Their name among the answers.
RESAMPLES = 1000


class _Segmentation(FoldTask):
    """See ``fit.StudyTask``. All figures are of one confusion matrix over the tested pictures."""

    def answers(self, run: FineTunedRun, folder: pathlib.Path, part: int) -> dict[str, Any]:
        """Returns by split and id the pixels of each class, and some masks of test pictures."""
        found = self._open(folder, part)
        kept: dict[str, Any] = {}
        for split in (VALIDATION, TEST):
            records = found.records(split)
            masks = [each["mask"] for each in run.predict(records, 1, whole_mesh())]
            kept[split] = _pixels(records, masks, len(found.meta["classes"]))
            if split == TEST:
                kept[MASKS] = {
                    as_text(records[index]["id"]): base64.b64encode(
                        mask_bytes(masks[index])
                    ).decode()
                    for index in np.linspace(0, len(masks) - 1, SHOWN).astype(int).tolist()
                }
        return kept

    def scores(self, found: dict[Fit, Any], start: str, folder: pathlib.Path) -> Scores:
        """Returns the share of each picture's pixels that are right, from one start."""
        rows = rows_tested([self._open(folder, fold) for fold in range(FOLDS)])
        pixels = _of(rows, self._tested(found, start, self._chosen_rates(found, start, rows)[0]))
        right = pixels.right.sum(1) / pixels.truth.sum(1)
        return Scores(right, rows.groups, "pixel_accuracy", each_group_once=False, seeds=FOLDS)

    def results(self, found: dict[Fit, Any], folder: pathlib.Path) -> dict[str, Any]:
        """Returns the comparison of both starts, each with the rates chosen on validation."""
        sets = [self._open(folder, fold) for fold in range(FOLDS)]
        rows = rows_tested(sets)
        chosen = {start: self._chosen_rates(found, start, rows) for start in STARTS}
        pixels = {
            start: _of(rows, self._tested(found, start, chosen[start][0])) for start in STARTS
        }
        one, other = pixels[PRETRAINED], pixels[RANDOM]
        means = {start: summary(each)["miou"] for start, each in pixels.items()}
        background = one._replace(
            right=one.truth * (np.arange(one.truth.shape[1]) == 0),
            given=one.truth.sum(1, keepdims=True) * (np.arange(one.truth.shape[1]) == 0),
        )
        low, high = gain_bounds(one, other, rows.groups)
        compared = {
            **means,
            "floors": {
                "all_background": summary(background)["miou"],
                "mask_of_the_nearest_picture": summary(_of(rows, _nearest(sets)))["miou"],
            },
            "gain": {"value": means[PRETRAINED] - means[RANDOM], "low": low, "high": high},
            "seeds": FOLDS,
        }
        rates = {
            start: {"validation": validation, "chosen": rates}
            for start, (rates, validation) in chosen.items()
        }
        return {
            "results": {self.name: {"miou": compared}},
            "protocol": {
                "data": [each.fingerprint for each in sets],
                "rows": len(rows.ids),
                "groups": len(set(rows.groups)),
                "rates": rates,
            },
        }

    def _tested(self, found: dict[Fit, Any], start: str, rates: Sequence[float]) -> dict[str, Any]:
        by_id: dict[str, Any] = {}
        for fold, rate in enumerate(rates):
            by_id |= found[Fit(start, rate, fold)][TEST]
        return by_id

    def _chosen_rates(
        self, found: dict[Fit, Any], start: str, rows: Rows
    ) -> tuple[list[float], dict[str, float]]:
        """Returns the rate of each fold, and by rate the validation mIoU over all folds.

        As in ``choosing.choose``: the rate of a fold is the one with the best figure on the
        validation pictures of all folds that this fold does not test.
        """
        folds = dict(zip(rows.ids, folds_of(rows.groups).tolist(), strict=True))

        def figure(rate: float, without: int | None) -> float:
            kept = [
                pixels
                for fold in range(FOLDS)
                for name, pixels in found[Fit(start, rate, fold)][VALIDATION].items()
                if folds[name] != without
            ]
            return summary(_joined(kept))["miou"]

        rates = tried(found, start, self.rates[start])
        chosen = []
        for fold in range(FOLDS):
            by_rate = [figure(rate, fold) for rate in rates]
            chosen.append(rates[len(rates) - 1 - int(np.argmax(by_rate[::-1]))])
        return chosen, {str(rate): figure(rate, None) for rate in rates}


def gain_bounds(one: Pixels, other: Pixels, groups: np.ndarray) -> tuple[float, float]:
    """Returns the bounds of the 95% interval of a difference of mIoU over the same pictures.

    The bootstrap draws whole groups, the same ones for both.
    """
    _, group = np.unique(groups, return_inverse=True)
    size = int(group.max()) + 1
    summed = []
    for pixels in (one, other):
        parts = [np.zeros((size, part.shape[1])) for part in pixels]
        for total, part in zip(parts, pixels, strict=True):
            np.add.at(total, group, part)
        summed.append(parts)
    rng, drawn = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        times = np.bincount(rng.integers(0, size, size), minlength=size)
        values = []
        for parts in summed:
            right, truth, given = (times @ part for part in parts)
            union = truth + given - right
            values.append((right[union > 0] / union[union > 0]).mean())
        drawn.append(values[0] - values[1])
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _pixels(records: Records, masks: Sequence[np.ndarray], classes: int) -> dict[str, Any]:
    """Returns by id the right, true and given pixels of each class."""
    found = {}
    for index, mask in enumerate(masks):
        record = records[index]
        parts = counts(mask_of(record), mask, classes)
        found[as_text(record["id"])] = [part.tolist() for part in parts]
    return found


def _joined(rows: Sequence[Any]) -> Pixels:
    return joined([Pixels(*map(np.array, row)) for row in rows], len(rows[0][0]))


def _of(rows: Rows, by_id: Mapping[str, Any]) -> Pixels:
    """Returns the pixels of the tested rows, in their order."""
    return _joined([by_id[name] for name in rows.ids])


def _nearest(sets: list[PreparedSet]) -> dict[str, Any]:
    """Returns the pixels by id, if each test picture gets the mask of the nearest training one."""
    found: dict[str, Any] = {}
    for each in sets:
        known, asked = records_of(each, TRAIN), each.records(TEST)
        pixels = [
            np.stack([small(decode(record["image"])) for record in records])
            for records in (known, records_of(each, TEST))
        ]
        numbers = nearest_neighbours(pixels[0], np.arange(len(known)), pixels[1], [1])[1]
        masks = [mask_of(known[number]) for number in numbers.tolist()]
        found |= _pixels(asked, masks, len(each.meta["classes"]))
    return found


def _no_answer(*_: Any) -> Any:
    raise NotImplementedError("an answer is a mask, not a word")


TASK = _Segmentation(
    name="segmentation",
    kind=Kind.MASKS,
    stream="image",
    rates={"pretrained": (4e-2, 2e-2, 1e-2, 5e-3), "random": (4e-2, 2e-2, 1e-2, 5e-3)},
    settled={"pretrained": 2e-2, "random": 2e-2},
    said="mask",
    right=_no_answer,
    floors=_no_answer,
)
