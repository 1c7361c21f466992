"""No picture and no text on both sides of the split, within a set and between sets.

Pictures decide: a pair stands where its picture stands, so one picture never has captions on both sides,
and an image set made of the same files is split alike. A caption may still belong to pictures of both
sides. Then training keeps it and validation does without it: the caption is left out there, and a pair
that has no other is left out with it.

Other rules were measured on the sample (3,447 pairs, a tenth held back, 42% of them with a caption that
another picture has too). This one leaves out 140 pairs, all of them held back. Leaving out training pairs
instead costs 1,071; deciding captions of several pictures by their own hash costs 380. Splitting by
connected pictures and captions costs none, but then one more pair can move any other to the other side,
a frequent caption ties a large part of a set together, and an image set of the same files, which has no
captions, cannot follow. What it means: held-back captions are ones that training has not seen.

Held-back pairs wait in a file until all training captions are known; of those, 8 bytes each are in
memory (twice that at the end).
"""

import array
import collections
import pathlib
import pickle
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vlbeit_jax.data.identity import KEYS, PICTURES, TEXTS, TRAIN, VALIDATION, text_key
from vlbeit_jax.data.keys import keys_of, merged
from vlbeit_jax.data.source import PreparedSet

Placed = tuple[str, dict[str, Any]]  # A record's split, and the record.
CAPTION_IN_TRAINING = "caption_in_training"
OTHER_SETS = {TRAIN: "held_back_in_another_set", VALIDATION: "trained_on_in_another_set"}


def captions_apart(records: Iterator[Placed], folder: pathlib.Path, left_out: collections.Counter) -> Iterator[Placed]:
    """Pairs, those of the training part first, whose held-back captions training has not.

    Args:
      records: pairs, placed by their pictures.
      folder: where the held-back ones wait, in a file without a name.
      left_out: counts the pairs that were, by reason.
    """
    seen = array.array("Q")
    with tempfile.TemporaryFile(dir=folder) as waiting:
        held = 0
        for split, record in records:
            if split == TRAIN:
                seen.extend(map(text_key, record["captions"]))
                yield split, record
            else:
                pickle.dump(record, waiting)
                held += 1
        waiting.seek(0)
        known = np.unique(np.frombuffer(seen, np.uint64)) if seen else np.zeros(0, np.uint64)
        for record in (pickle.load(waiting) for _ in range(held)):
            if _without(record, known):
                yield VALIDATION, record
            else:
                left_out[CAPTION_IN_TRAINING] += 1


class OtherSets:
    """Prepared sets that this one will be used with: nothing may be held back in one and trained on in another."""

    def __init__(self, sets: Sequence[PreparedSet]):
        """Their keys; 8 bytes each in memory."""
        self._opposite = {
            split: {what: merged(each.keys(what, other) for each in sets) for what in KEYS}
            for split, other in ((TRAIN, VALIDATION), (VALIDATION, TRAIN))
        }

    def apart(self, records: Iterator[Placed], left_out: collections.Counter) -> Iterator[Placed]:
        """Records without those that stand on the other side there; ``left_out`` counts them."""
        for split, record in records:
            opposite = self._opposite[split]
            strange = not any(_among(key, opposite[PICTURES]) for key in keys_of(record).get(PICTURES, ()))
            if strange and _without(record, opposite[TEXTS]):
                yield split, record
            else:
                left_out[OTHER_SETS[split]] += 1


def _without(record: dict[str, Any], known: np.ndarray) -> bool:
    """Takes known captions out of a record; whether there is anything left to use it for."""
    if "captions" in record:
        record["captions"] = [text for text in record["captions"] if not _among(text_key(text), known)]
        return bool(record["captions"])
    return not any(_among(key, known) for key in keys_of(record).get(TEXTS, ()))


def _among(key: int, known: np.ndarray) -> bool:
    place = np.searchsorted(known, np.uint64(key))
    return bool(place < known.size and known[place] == key)
