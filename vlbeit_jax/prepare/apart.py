"""Keeps pictures and texts from being on both sides of the split, within a set and between sets.

The picture decides the side of a pair. So one picture never has captions on both sides, and an
image set made from the same files is split in the same way. A caption may still belong to pictures
of both sides. Then training keeps the caption, and validation leaves it out. A held-out pair
without any other caption is left out too. So training has seen none of the held-out captions.

We compared other rules on the sample (3,447 pairs, a tenth held out, 42% of them with a caption
that another picture has too). This rule leaves out 140 pairs, all of them held out. To leave out
training pairs instead costs 1,071 pairs. To decide captions of several pictures by their own hash
costs 380. To split by connected pictures and captions costs none. But then one more pair can move
any other pair to the other side, a frequent caption connects a large part of a set, and an image
set of the same files, which has no captions, cannot be split in the same way.

Held-out pairs wait in files of their own until all training captions are known (``merge.py``).
"""

import collections
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vlbeit_jax.data.identity import HELD_OUT, KEYS, PICTURES, TEXTS, TRAIN, text_key
from vlbeit_jax.data.keys import keys_of, merged
from vlbeit_jax.data.source import PreparedSet
from vlbeit_jax.places import fetched
from vlbeit_jax.prepare.parts import whole

Placed = tuple[str, dict[str, Any]]  # A record's split, and the record.
CAPTION_IN_TRAINING = "caption_in_training"
HELD_OUT_ELSEWHERE, TRAINED_ON_ELSEWHERE = "held_out_in_another_set", "trained_on_in_another_set"


class OtherSets:
    """Prepared sets that this one will be used with: what one holds out, no other may train on."""

    def __init__(self, sets: Sequence[PreparedSet]):
        """Reads the keys of the sets; each takes 8 bytes of memory."""

        def keys(splits: Sequence[str]) -> dict[str, np.ndarray]:
            return {
                what: merged(each.keys(what, split) for each in sets for split in splits)
                for what in KEYS
            }

        self._trained, self._held_out = keys([TRAIN]), keys(HELD_OUT)

    def save(self, folder: pathlib.Path) -> None:
        """Writes the keys, which worker processes share."""
        folder.mkdir(exist_ok=True)
        for name, by_kind in (("trained", self._trained), ("held_out", self._held_out)):
            for what, keys in by_kind.items():
                with whole(folder / f"{name}-{what}.npy") as path, path.open("wb") as file:
                    np.save(file, keys)

    @classmethod
    def read(cls, folder: pathlib.Path) -> "OtherSets":
        """Opens what ``save`` wrote; the keys stay on the disk."""
        opened = cls([])
        opened._trained, opened._held_out = (
            {what: np.load(fetched(folder / f"{name}-{what}.npy"), mmap_mode="r") for what in KEYS}
            for name in ("trained", "held_out")
        )
        return opened

    def apart(
        self,
        records: Iterator[Placed],
        left_out: collections.Counter,
        *,
        all_held_out: bool = False,
    ) -> Iterator[Placed]:
        """Yields records that are not on the other side of the split; counts the others.

        Args:
          records: with their split.
          left_out: counts by reason.
          all_held_out: whether held-out records stay whatever other sets train on, as those of a
            benchmark do. Then the other sets have to be prepared apart from this one.
        """
        for split, record in records:
            if all_held_out and split != TRAIN:
                yield split, record
                continue
            opposite = self._held_out if split == TRAIN else self._trained
            strange = not any(
                _among(key, opposite[PICTURES]) for key in keys_of(record).get(PICTURES, ())
            )
            if strange and keeps_texts(record, opposite[TEXTS]):
                yield split, record
            else:
                reason = HELD_OUT_ELSEWHERE if split == TRAIN else TRAINED_ON_ELSEWHERE
                left_out[reason] += 1


def keeps_texts(record: dict[str, Any], known: np.ndarray) -> bool:
    """Removes known captions from a record; returns whether the record is still of use."""
    if "captions" in record:
        record["captions"] = [
            text for text in record["captions"] if not _among(text_key(text), known)
        ]
        return bool(record["captions"])
    return not any(_among(key, known) for key in keys_of(record).get(TEXTS, ()))


def _among(key: int, known: np.ndarray) -> bool:
    place = np.searchsorted(known, np.uint64(key))
    return bool(place < known.size and known[place] == key)
