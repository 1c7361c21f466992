"""Visual tokens that were computed once and are read from disk.

A folder holds the tokens of a fixed number of views of every training record, for any number of
sets. Each set has a folder of its own, named by a hash of all that its tokens depend on, so that a
run never reads others than its own. Records come in parts of one file each, which any number of
processes may make.
"""

import dataclasses
import functools
import json
import pathlib
from typing import Any

import numpy as np

from vlbeit_jax.config.parse import fingerprint
from vlbeit_jax.config.streams import ViewStreamConfig
from vlbeit_jax.data.records import Records
from vlbeit_jax.data.source import TRAIN, PreparedSet
from vlbeit_jax.errors import StorageError, UsageError
from vlbeit_jax.places import appearing, fetched
from vlbeit_jax.places import place as place_of
from vlbeit_jax.shapes import UInt
from vlbeit_jax.storage import NO_ROOM

RECORDS_IN_PART = 2**14  # 51 MB with eight views of 196 patches.
FORMAT = 2  # 2: views are drawn by ``data.draws``.
DESCRIPTION = "tokens.json"
VISUAL_TOKENS = "visual_tokens"  # The entry of a record that holds those of all its views.


@dataclasses.dataclass(frozen=True)
class CachedTokens:
    """Where the tokens of one set's views lie, made or not yet.

    Attributes:
      folder: of this set and these views.
      description: all that the tokens depend on.
      records: how many there are.
    """

    folder: pathlib.Path
    description: dict[str, Any]
    records: int

    @property
    def parts(self) -> range:
        """Numbers of all parts."""
        return range(-(-self.records // RECORDS_IN_PART))

    def records_of(self, part: int) -> range:
        """Which records a part holds."""
        return range(part * RECORDS_IN_PART, min((part + 1) * RECORDS_IN_PART, self.records))

    def has(self, part: int) -> bool:
        """Whether it was made."""
        return self._file(part).is_file()

    def make_folder(self) -> None:
        """Makes the folder, with the description in it. Several processes may do so at a time.

        Raises:
          StorageError: there is no room.
          UsageError: it cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with appearing(self.folder / DESCRIPTION, by_many=True) as file:
                file.write(json.dumps(self.description, indent=1) + "\n")
        except OSError as error:
            raise UsageError(f"{self.folder} cannot be written: {error.strerror}") from error

    def write(self, part: int, tokens: UInt[np.ndarray, "A views N"]) -> None:
        """Keeps the tokens of a part; it appears whole or not at all, whoever else writes it.

        Raises:
          StorageError: there is no room.
        """
        try:
            with appearing(self._file(part), "wb", by_many=True) as file:
                np.save(file, tokens)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise StorageError(
                f"{self.folder}: {error.strerror}; the parts that were made before are kept"
            ) from error

    def __getitem__(self, record: int) -> UInt[np.ndarray, "views N"]:
        """The tokens of every view of a record."""
        part, row = divmod(record, RECORDS_IN_PART)
        return _mapped(self._file(part))[row]

    def _file(self, part: int) -> pathlib.Path:
        return self.folder / f"{part:06d}.npy"


@functools.cache
def _mapped(file: pathlib.Path) -> np.ndarray:
    """Opened where it is read: a loader process gets paths, and not what lies there."""
    return np.load(fetched(file), mmap_mode="r")


class WithTokens:
    """Records, each with the tokens of its views."""

    def __init__(self, records: Records, cached: CachedTokens):
        self._records, self._cached = records, cached

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self._records[index], VISUAL_TOKENS: self._cached[index]}


def cached_tokens(
    place: str | pathlib.Path,
    found: PreparedSet,
    stream: ViewStreamConfig,
    image_size: int,
    tokenizer: str,
) -> CachedTokens:
    """The tokens of a set's views, whether they were made or not.

    Args:
      place: the folder for those of all sets.
      found: the set.
      stream: says how views are made.
      image_size: side of a view, pixels.
      tokenizer: fingerprint of the visual tokenizer.
    """
    description = {
        "format": FORMAT,
        "set": found.fingerprint,
        "visual_tokenizer": tokenizer,
        "image_size": image_size,
        **{
            name: getattr(stream, name) for name in ("views", "crop_scale", "colour_jitter", "flip")
        },
    }
    return CachedTokens(place_of(place) / fingerprint(description), description, found.count(TRAIN))


def require_all(cached: CachedTokens, found: PreparedSet) -> None:
    """Raises a ``UsageError`` if tokens of a set are missing; it says what there is instead."""
    missing = [part for part in cached.parts if not cached.has(part)]
    if not missing:
        return
    make = "python -m vlbeit_jax.keep_tokens with the same configuration makes them"
    if len(missing) < len(cached.parts):
        raise UsageError(
            f"{cached.folder}: {len(missing)} of {len(cached.parts)} parts of the tokens of "
            f"{found.folder} are missing; {make}"
        )
    others = [
        json.loads(path.read_text())
        for path in sorted(cached.folder.parent.glob(f"*/{DESCRIPTION}"))
    ]
    differences = [
        ", ".join(
            f"{name}={other.get(name)} and not {value}"
            for name, value in cached.description.items()
            if other.get(name) != value
        )
        for other in others
    ]
    there = f"; it holds some with {'; some with '.join(differences)}" if differences else ""
    raise UsageError(
        f"task.visual_tokens={cached.folder.parent} holds no tokens of {found.folder} as "
        f"configured{there}; {make}"
    )
