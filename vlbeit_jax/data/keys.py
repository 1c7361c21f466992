"""Keys of a split's pictures and texts: sorted 64-bit hashes beside the shards.

With them we compare two sets without reading a record. A file is one array of two rows. The first
has the keys in rising order; the second has the number of each key's record (in a tokens set, of
the document that was packed). Ten million keys take 160 MB on disk. The file is memory-mapped, and
comparing its keys with a million others takes about a second and reads little of it.
"""

import array
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from vlbeit_jax.data.identity import DIGESTS, PICTURES, TEXTS, picture_key, text_key
from vlbeit_jax.shapes import UInt

Keys = UInt[np.ndarray, "2 _"]
NONE = np.zeros((2, 0), np.uint64)


def keys_file(folder: pathlib.Path, what: str, split: str) -> pathlib.Path:
    """Returns the path of a split's keys."""
    return folder / f"{what}-{split}.npy"


def keys_of(record: Mapping[str, Any]) -> dict[str, list[int]]:
    """Returns the keys of a record's pictures and texts, each once.

    A question belongs to its picture and has no key: "what colour is it?" is asked everywhere. Nor
    has a statement, which is true of some pictures and false of others.
    """
    texts = record.get("captions", [])
    if "text" in record and "sha256" not in record:
        texts = [record["text"]]
    pictures = [picture_key(record[name]) for name in DIGESTS if name in record]
    keys = {PICTURES: list(dict.fromkeys(pictures))} if pictures else {}
    decoded = (text.decode() if isinstance(text, bytes) else text for text in texts)
    return keys | ({TEXTS: list(dict.fromkeys(map(text_key, decoded)))} if len(texts) else {})


class KeyCollector:
    """Gathers the keys of records; each takes 16 bytes."""

    def __init__(self) -> None:
        self._keys: dict[tuple[str, str], tuple[array.array, array.array]] = {}

    def add(self, split: str, number: int, keys: Mapping[str, Iterable[int]]) -> None:
        """Adds the keys of record ``number`` of a split."""
        for what, listed in keys.items():
            both = self._keys.setdefault((what, split), (array.array("Q"), array.array("Q")))
            for key in listed:
                both[0].append(key)
                both[1].append(number)

    def sorted(self) -> dict[tuple[str, str], Keys]:
        """Returns, by kind of key and split, each key once with the first record that has it."""
        arrays = {}
        for place, (keys, numbers) in self._keys.items():
            unique, first = np.unique(np.frombuffer(keys, np.uint64), return_index=True)
            arrays[place] = np.stack([unique, np.frombuffer(numbers, np.uint64)[first]])
        return arrays


def common(some: Keys, others: UInt[np.ndarray, " _"]) -> Keys:
    """Returns the part of ``some`` whose keys are among the sorted ``others``."""
    if not some.shape[1] or not others.size:
        return NONE
    places = np.minimum(np.searchsorted(others, some[0]), others.size - 1)
    return some[:, others[places] == some[0]]


def merged(parts: Iterable[Keys]) -> UInt[np.ndarray, " _"]:
    """Returns the sorted keys of several parts, each once."""
    return np.unique(np.concatenate([NONE[0], *(part[0] for part in parts)]))
