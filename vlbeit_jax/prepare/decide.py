"""Decides which records stay, when all parts are finished."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from vlbeit_jax.data.identity import TRAIN
from vlbeit_jax.data.source import PreparedSet
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare import duplicates
from vlbeit_jax.prepare.apart import CAPTION_IN_TRAINING
from vlbeit_jax.prepare.counts import Counts, of_kind
from vlbeit_jax.prepare.final import KNOWN_FILE
from vlbeit_jax.prepare.held_apart import leave_out_held_out, records_of
from vlbeit_jax.prepare.merge import (
    Edits,
    Merged,
    captions_repeated,
    leave_out_captions,
    no_edits,
    texts_of,
)
from vlbeit_jax.prepare.parts import whole
from vlbeit_jax.prepare.work_plan import WorkPlan
from vlbeit_jax.types import Kind

REPORT, REMOVE = "report", "remove"  # What to do with pictures that look alike.
NEAR, NEAR_OTHERS = "near_duplicate", "near_duplicate_of_another_set"
DUPLICATE = "duplicate"


@dataclasses.dataclass(frozen=True)
class Wishes:
    """Options that are applied at the end. If one changes, finished parts stay as they are.

    Attributes:
      shards: per split; 0: as many as give shards of a good size.
      fewest: records of a small set that must be held out.
      deduplicate: whether equal records are merged.
      near_duplicates: REPORT or REMOVE pictures that look alike; empty: they are not compared.
      workers: processes; negative: one for each core.
    """

    shards: int = 0
    fewest: int = 0
    deduplicate: bool = False
    near_duplicates: str = ""
    workers: int = 0

    def require_fit(self, kind: Kind) -> None:
        """Raises a ``UsageError`` if duplicates cannot be removed from records of a kind.

        Records of other kinds are about the same picture by design, or the set states how many
        there are of each class.
        """
        for flag, value, kinds in (
            ("--deduplicate", self.deduplicate, (Kind.IMAGES, Kind.PAIRS, Kind.TEXTS)),
            ("--near_duplicates", self.near_duplicates, (Kind.IMAGES, Kind.PAIRS)),
        ):
            if value and kind not in kinds:
                raise UsageError(f"{flag} is for {', '.join(kinds)}, but --kind={kind}")

    def as_options(self) -> dict[str, Any]:
        """Returns what the description says of them, if they differ from the defaults."""
        options = {
            "shards": self.shards,
            "deduplicate": self.deduplicate,
            "near_duplicates": self.near_duplicates,
        }
        return {name: value for name, value in options.items() if value}


def decide(
    plan: WorkPlan,
    merged: Merged,
    wishes: Wishes,
    others: Sequence[PreparedSet],
    counts: Counts,
) -> tuple[dict[str, Edits], dict[str, Any]]:
    """Returns the edits by split, and what the description says of them."""
    edits, described = no_edits(merged), {}
    if wishes.deduplicate:
        counts.left_out[DUPLICATE] += duplicates.merge_exact(merged, plan.kind, edits)
    else:
        repeated = duplicates.exact(merged, plan.kind).values()
        described["duplicates"] = sum(len(numbers) for numbers, _ in repeated)
    if wishes.near_duplicates:
        alike = {
            NEAR_OTHERS: duplicates.near_others(merged, edits, others),
            NEAR: duplicates.near(merged, edits),
        }
        described["near_duplicates"] = {
            reason: {split: len(numbers) for split, numbers in each.items() if len(numbers)}
            for reason, each in alike.items()
        }
        if wishes.near_duplicates == REMOVE:
            for reason, each in alike.items():
                for split, numbers in each.items():
                    counts.left_out[reason] += int(edits[split].kept[numbers].sum())
                    edits[split].kept[numbers] = False
    if plan.request.official:
        removed = leave_out_held_out(merged, edits, plan.kind, counts.left_out)
        described |= of_kind(plan, merged.parts, records_of(plan, merged, removed))
    else:
        described |= of_kind(plan, merged.parts)
    for split, renamed in merged.repeated_ids().items():
        edits[split].renamed |= renamed
        counts.repeated_ids += len(renamed)
    if plan.kind is Kind.PAIRS and plan.request.official:
        if repeated := captions_repeated(merged, edits):
            described["captions_in_training"] = repeated
    elif plan.kind is Kind.PAIRS:
        counts.left_out[CAPTION_IN_TRAINING] += leave_out_captions(merged, edits)
        if TRAIN in edits:
            known = np.unique(texts_of(merged, TRAIN, edits[TRAIN])[0])
            with whole(plan.folder / KNOWN_FILE) as path, path.open("wb") as file:
                np.save(file, known)
    return edits, described
