"""Which pictures and texts a part of a prepared set holds: sorted 64-bit hashes beside the shards.

With them two sets are compared without reading a record. A file is one array of two rows: the keys in
rising order, and the record that each is of (of a tokens set: the document that was packed). Ten million
keys are 160 MB on disk, which is mapped and not read; comparing them with a million others takes about a
second and touches little of it.
"""

import array
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from vlbeit_jax.data.identity import PICTURES, TEXTS, picture_key, text_key
from vlbeit_jax.shapes import UInt

Keys = UInt[np.ndarray, "2 _"]
NONE = np.zeros((2, 0), np.uint64)


def keys_file(folder: pathlib.Path, what: str, split: str) -> pathlib.Path:
    """Where the keys of a split lie."""
    return folder / f"{what}-{split}.npy"


def keys_of(record: Mapping[str, Any]) -> dict[str, list[int]]:
    """The keys of a record's picture and texts, each once."""
    texts = record["captions"] if "captions" in record else [record["text"]] if "text" in record else []
    found = {PICTURES: [picture_key(record["sha256"])]} if "sha256" in record else {}
    decoded = (text.decode() if isinstance(text, bytes) else text for text in texts)
    return found | ({TEXTS: list(dict.fromkeys(map(text_key, decoded)))} if len(texts) else {})


class KeyCollector:
    """Gathers keys as records come; 16 bytes each."""

    def __init__(self) -> None:
        self._keys: dict[tuple[str, str], tuple[array.array, array.array]] = {}

    def add(self, split: str, number: int, keys: Mapping[str, Iterable[int]]) -> None:
        """Notes the keys of a split's record ``number``."""
        for what, found in keys.items():
            both = self._keys.setdefault((what, split), (array.array("Q"), array.array("Q")))
            for key in found:
                both[0].append(key)
                both[1].append(number)

    def sorted(self) -> dict[tuple[str, str], Keys]:
        """By kind of key and split: each key once, with the first record that has it."""
        found = {}
        for place, (keys, numbers) in self._keys.items():
            unique, first = np.unique(np.frombuffer(keys, np.uint64), return_index=True)
            found[place] = np.stack([unique, np.frombuffer(numbers, np.uint64)[first]])
        return found


def common(some: Keys, others: UInt[np.ndarray, "_"]) -> Keys:
    """Those of ``some`` whose keys are among ``others``, which are in rising order."""
    if not some.shape[1] or not others.size:
        return NONE
    places = np.minimum(np.searchsorted(others, some[0]), others.size - 1)
    return some[:, others[places] == some[0]]


def merged(parts: Iterable[Keys]) -> UInt[np.ndarray, "_"]:
    """The keys of several parts, each once, in rising order."""
    return np.unique(np.concatenate([NONE[0], *(part[0] for part in parts)]))
