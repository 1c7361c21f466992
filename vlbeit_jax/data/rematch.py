"""Wrong partners for pairs: the control that shows whether one modality helps to read the other."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vlbeit_jax.shapes import Int

TRIES = 100


class Rematched:
    """Records with one field taken from another record; everything else, and so every mask, stays as it is."""

    def __init__(self, records: Sequence[Mapping[str, Any]], partners: Int[np.ndarray, "A"], field: str):
        """Record ``i`` gets ``field`` ("image" or "captions") of record ``partners[i]``."""
        self._records, self._partners, self._field = records, partners, field

    def __len__(self) -> int:
        """As many as before."""
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """The record with its wrong partner."""
        return dict(self._records[index]) | {self._field: self._records[int(self._partners[index])][self._field]}


def wrong_partners(records: Sequence[Mapping[str, Any]], seed: int) -> Int[np.ndarray, "A"]:
    """For every pair another one, each used about once, whose first caption differs wherever that is possible.

    A random permutation; places that still meet an equal caption are drawn again among themselves and a few others.
    """
    captions = np.array([record["captions"][0] for record in (records[i] for i in range(len(records)))])
    rng = np.random.default_rng(seed)
    partners = rng.permutation(len(captions))
    for _ in range(TRIES):
        clashes = np.flatnonzero(captions[partners] == captions)
        if clashes.size == 0:
            break
        mixed = np.union1d(clashes, rng.choice(len(captions), min(clashes.size, len(captions)), replace=False))
        partners[mixed] = partners[rng.permutation(mixed)]
    return partners
