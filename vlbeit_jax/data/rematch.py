"""Wrong partners for pairs: the control that shows whether one modality helps to read the other."""

from typing import Any

import numpy as np

from vlbeit_jax.data.order import Permutation
from vlbeit_jax.data.records import Records
from vlbeit_jax.shapes import Int


class Rematched:
    """Records with one field taken from another record; all else, and so every mask, stays."""

    def __init__(self, records: Records, partners: Int[np.ndarray, " A"], field: str):
        """Record ``i`` gets ``field`` ("image" or "captions") of record ``partners[i]``."""
        self._records, self._partners, self._field = records, partners, field

    def __len__(self) -> int:
        """As many as before."""
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The record with its wrong partner."""
        return dict(self._records[index]) | {
            self._field: self._records[int(self._partners[index])][self._field]
        }


def wrong_partners(records: Records, seed: int) -> Int[np.ndarray, " A"]:
    """Returns for every pair another one, with another first caption wherever possible.

    Records in random order, equal captions side by side, each paired with the one as far ahead as
    the largest group is long.
    """
    captions = np.array(
        [record["captions"][0] for record in (records[i] for i in range(len(records)))]
    )
    _, group, counts = np.unique(captions, return_inverse=True, return_counts=True)
    shuffled = Permutation(len(captions), "rematch", seed).at(np.arange(len(captions)))
    places = Permutation(len(counts), "rematch groups", seed).at(np.arange(len(counts)))
    order = shuffled[np.argsort(places[group[shuffled]], kind="stable")]
    partners = np.empty_like(order)
    partners[order] = np.roll(order, -min(counts.max(), len(order) - 1))
    return partners
