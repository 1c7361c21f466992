"""Prepared data sets: folders that TFDS opens, with a description of what they hold and where it came from."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import tensorflow_datasets as tfds

from vlbeit_jax.errors import UsageError
from vlbeit_jax.types import Kind

META_FILE = "vlbeit_meta.json"
SAMPLE_PREFIX = "sample:"
SAMPLE_FOLDER = pathlib.Path(__file__).parent.parent / "sample_data"
TRAIN, VALIDATION = "train", "validation"


@runtime_checkable
class Records(Protocol):
    """Random access to records; TFDS's data sources, lists and our own views of them are such."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        """One record."""
        ...


@dataclasses.dataclass(frozen=True)
class PreparedSet:
    """An opened data set.

    Attributes:
      folder: where it lies.
      kind: what a record holds.
      meta: the content of ``vlbeit_meta.json``: source, licence, options, counts, drops by reason, fingerprints.
    """

    folder: pathlib.Path
    kind: Kind
    meta: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """Identifies the records: a hash over the files."""
        return self.meta["fingerprint"]

    @property
    def contains(self) -> list[str]:
        """Fingerprints of everything that a model trained on this set has seen: its own, and that of packed texts."""
        return [self.fingerprint, *self.meta.get("packed_from", [])]

    def count(self, split: str) -> int:
        """Records of a split."""
        return self.meta["counts"].get(split, 0)

    def records(self, split: str) -> Records:
        """Random access to a split; images stay encoded, so that a record is read in one small piece."""
        if not self.count(split):
            raise UsageError(f"{self.folder} has no {split!r} records; it has {dict(self.meta['counts'])}")
        builder = _builder(self.folder)
        decoders = {"image": tfds.decode.SkipDecoding()} if "image" in builder.info.features else None
        return builder.as_data_source(split, decoders=decoders)


@functools.cache
def _builder(folder: pathlib.Path) -> Any:
    return tfds.builder_from_directory(folder)


def open_set(place: str, *allowed: Kind) -> PreparedSet:
    """Opens a prepared data set.

    Args:
      place: its folder, or ``sample:NAME`` for one that ships with the package.
      allowed: kinds that will do; none given: any.

    Raises:
      UsageError: there is no such folder, it was not made by ``vlbeit_jax.prepare``, or it is of another kind.
    """
    folder = SAMPLE_FOLDER / place.removeprefix(SAMPLE_PREFIX) if place.startswith(SAMPLE_PREFIX) else pathlib.Path(place)
    if not (folder / META_FILE).is_file():
        known = ", ".join(sorted(SAMPLE_PREFIX + path.parent.name for path in SAMPLE_FOLDER.glob(f"*/{META_FILE}")))
        state = f"holds no {META_FILE}" if folder.is_dir() else "does not exist"
        raise UsageError(
            f"data set {place!r}: {folder} {state}; make a data set with python -m vlbeit_jax.prepare (in the package: {known})"
        )
    meta = json.loads((folder / META_FILE).read_text())
    kind = Kind(meta["kind"])
    if allowed and kind not in allowed:
        raise UsageError(f"data set {place!r} holds {kind}, but {' or '.join(allowed)} are needed here")
    return PreparedSet(folder, kind, meta)
