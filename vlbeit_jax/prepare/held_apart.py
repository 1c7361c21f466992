"""What a published benchmark has in two splits: it stays in the one that is held out.

Its authors cannot be asked to mend it, and its held-out part must stay as it is. So training
leaves out what a held-out split has, and validation leaves out what the test split has. The parts
hold all records, so that any process can write any part.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vlbeit_jax.data.identity import PICTURES, TEST, TEXTS, TRAIN, VALIDATION
from vlbeit_jax.prepare.encoding import Encoder
from vlbeit_jax.prepare.final import reader_of
from vlbeit_jax.prepare.merge import Edits, Merged
from vlbeit_jax.prepare.parts import GROUPS
from vlbeit_jax.prepare.work_plan import WorkPlan
from vlbeit_jax.prepare.write_part import features_of
from vlbeit_jax.types import Kind

ORDER = (TEST, VALIDATION, TRAIN)  # A later one leaves out what an earlier one has.
NAMES = {PICTURES: "picture", TEXTS: "text", GROUPS: "group"}  # In reasons.
Removed = Sequence[tuple[str, int]]  # Split and number of each record.


def leave_out_held_out(
    merged: Merged, edits: Mapping[str, Edits], kind: Kind, left_out: collections.Counter[str]
) -> list[tuple[str, int]]:
    """Removes the records whose picture, text or group an earlier split has.

    Args:
      merged: all parts.
      edits: by split.
      kind: of the records. Captions may be in several splits.
      left_out: gets the number of removed records by reason.

    Returns:
      Split and number of each removed record.
    """
    compared = [what for what in NAMES if what != TEXTS or kind is not Kind.PAIRS]
    known: dict[tuple[str, str], np.ndarray] = {}
    removed = []
    for split in (split for split in ORDER if split in edits):
        kept = edits[split].kept
        for what in compared:
            keys, numbers = merged.keys(what, split)
            for (other, held), earlier in known.items():
                if held == what:
                    repeated = np.unique(numbers[np.isin(keys, earlier)])
                    repeated = repeated[kept[repeated]]
                    kept[repeated] = False
                    removed += [(split, number) for number in repeated.tolist()]
                    if len(repeated):
                        left_out[f"{NAMES[what]}_in_{other}"] += len(repeated)
        if split != TRAIN:
            for what in compared:
                keys, numbers = merged.keys(what, split)
                known[split, what] = np.unique(keys[kept[numbers]])
    return removed


def records_of(
    plan: WorkPlan, merged: Merged, removed: Removed
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields some records with their splits."""
    encoder = Encoder(features_of(plan))
    by_part: dict[tuple[str, int], list[int]] = {}
    for split, number in removed:
        part, place = merged.place(split, number)
        by_part.setdefault((split, part), []).append(place)
    for (split, part), places in by_part.items():
        reader = reader_of(plan, split, part)
        for place in places:
            yield split, encoder.decode(reader.read([place])[0])
        reader.close()
