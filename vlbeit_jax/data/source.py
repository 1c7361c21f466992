"""Prepared data sets: folders that TFDS opens, with a description of their content."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vlbeit_jax.data.headers import MAX_PIXELS
from vlbeit_jax.data.identity import TRAIN, VALIDATION
from vlbeit_jax.data.keys import NONE, Keys, keys_file
from vlbeit_jax.data.records import Records
from vlbeit_jax.data.set_records import SetRecords
from vlbeit_jax.data.shards import RECORDS, require_shards
from vlbeit_jax.data.strings import with_fast_strings
from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import fetched
from vlbeit_jax.places import place as place_of
from vlbeit_jax.types import Kind

__all__ = ["TRAIN", "VALIDATION", "PreparedSet", "Records", "open_set", "open_sets_once"]
# Format 2: a record keeps source and sha256; the picture, or the text as the tokenizer sees it,
# decides the split; keys are stored beside the shards; and the fingerprint is a hash of the
# content.
FORMAT = 2
META_FILE = "vlbeit_meta.json"
# How a set's records are divided over its shards. Sets of versions up to 0.2.0 do not say this:
# they are IN_TURN.
IN_TURN, ONE_AFTER_ANOTHER = "in_turn", "one_after_another"
SAMPLE_PREFIX = "sample:"
SAMPLE_FOLDER = pathlib.Path(__file__).parent.parent / "sample_data"


@dataclasses.dataclass(frozen=True)
class PreparedSet:
    """An opened data set.

    Attributes:
      folder: where it lies.
      kind: what a record holds.
      meta: the content of ``vlbeit_meta.json``: source, licence, options, counts, drops by reason,
        fingerprints.
    """

    folder: pathlib.Path
    kind: Kind
    meta: Mapping[str, Any]

    @property
    def name(self) -> str:
        """How a configuration names the set: its folder, or ``sample:NAME``."""
        shipped = self.folder.parent == SAMPLE_FOLDER
        return f"{SAMPLE_PREFIX}{self.folder.name}" if shipped else str(self.folder)

    @property
    def fingerprint(self) -> str:
        """Identifies the records: a hash over their content and order."""
        return self.meta["fingerprint"]

    @property
    def contains(self) -> list[str]:
        """Fingerprints of all that a model trained on this set has seen: also of packed texts."""
        return [self.fingerprint, *self.meta.get("packed_from", [])]

    def count(self, split: str) -> int:
        """Records of a split."""
        return self.meta["counts"].get(split, 0)

    def records(self, split: str) -> SetRecords:
        """Returns random access to a split, in an order that the number of shards does not change.

        Images stay encoded, so that a record is read in one small piece. A record that cannot be
        read raises a ``BadRecord`` when it is asked for.

        Raises:
          UsageError: the split is empty, or the description does not fit the shards.
          BadData: a shard is missing, or is not the one that was written.
        """
        if not self.count(split):
            raise UsageError(
                f"{self.folder} has no {split!r} records; it has {dict(self.meta['counts'])}"
            )
        import tensorflow_datasets as tfds

        builder = _builder(self.folder)
        self.require_shards(split)
        lengths = list(builder.info.splits[split].shard_lengths)
        in_turn = self.meta.get("shard_order", IN_TURN) == IN_TURN
        if lengths != (wanted := self._lengths(split, len(lengths), in_turn)):
            raise UsageError(
                f"{self.folder}: its shards hold {lengths} {split} records, but {wanted} were "
                "written to them; prepare it again"
            )
        pictures = [
            name
            for name, feature in builder.info.features.items()
            if isinstance(feature, tfds.features.Image)
        ]
        decoders = dict.fromkeys(pictures, tfds.decode.SkipDecoding())
        records = builder.as_data_source(split, decoders=decoders or None)
        records = with_fast_strings(records, builder.info.features)
        files = [self.folder / name for name in builder.info.splits[split].filenames]
        return SetRecords(records, files, lengths, in_turn, pictures, self._max_pixels)

    def require_shards(
        self, split: str, whole: bool = False, part: tuple[int, int] = (0, 1)
    ) -> None:
        """Checks that the shards of a split are those that were written: see ``data.shards``.

        Args:
          split: of the set.
          whole: compare hashes of whole files, and not only of their ends.
          part: number of this process, which checks every so many files, and how many there are.

        Raises:
          BadData: a shard is missing, or is another one.
        """
        start = f"{self.kind}-{split}."
        described = self.meta.get("shards", {})
        shards = {name: each for name, each in described.items() if name.startswith(start)}
        if not shards:  # A set of version 0.2.0 or before.
            info = _builder(self.folder).info.splits[split]
            counts = zip(info.filenames, info.shard_lengths, strict=True)
            shards = {name: {RECORDS: count} for name, count in counts}
        process, count = part
        require_shards(self.folder, dict(sorted(shards.items())[process::count]), whole)

    @property
    def _max_pixels(self) -> int:
        """Height times width of a picture, at most: what ``prepare`` was told, or its default."""
        return self.meta.get("options", {}).get("limits", {}).get("max_pixels", MAX_PIXELS)

    def _lengths(self, split: str, shards: int, in_turn: bool) -> list[int]:
        """Returns how many records each shard of a split must have."""
        if in_turn:
            return [len(range(shard, self.count(split), shards)) for shard in range(shards)]
        start = f"{self.kind}-{split}."
        names = sorted(name for name in self.meta["shards"] if name.startswith(start))
        return [self.meta["shards"][name]["records"] for name in names]

    def keys(self, what: str, split: str) -> Keys:
        """Returns the keys of the pictures or texts that a split holds; see ``data.keys``.

        Args:
          what: PICTURES or TEXTS of ``data.identity``.
          split: of the set.

        Raises:
          UsageError: their file is missing, or is not the one that was written.
        """
        count = self.meta["keys"].get(split, {}).get(what, 0)
        if not count:
            return NONE
        path = keys_file(self.folder, what, split)
        try:
            keys = np.load(fetched(path), mmap_mode="r")
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{path}: cannot be read ({error}); copy it again, or prepare the set again"
            ) from error
        if keys.shape != (2, count) or keys.dtype != np.uint64:
            raise UsageError(
                f"{path}: holds {keys.shape[-1]} keys, but {count} were written; copy it again, "
                "or prepare the set again"
            )
        return keys


@functools.cache
def _builder(folder: pathlib.Path) -> Any:
    # It takes half a second to import, and whoever only opens a model reads no set.
    import tensorflow_datasets as tfds

    return tfds.builder_from_directory(str(folder))


def _why_no_set(folder: pathlib.Path) -> str:
    """Returns what is wrong with a place that is no prepared set, and what to do."""
    made = "make a data set with python -m vlbeit_jax.prepare"
    if folder.is_file():
        return f"is a file, and a data set is a folder; {made} --input={folder}"
    if folder.is_dir():
        return f"holds no {META_FILE}; {made} --input={folder}"
    found = (SAMPLE_PREFIX + path.parent.name for path in SAMPLE_FOLDER.glob(f"*/{META_FILE}"))
    return f"does not exist; {made} (in the package: {', '.join(sorted(found))})"


def open_set(place: str, *allowed: Kind) -> PreparedSet:
    """Opens a prepared data set.

    Args:
      place: its folder, or ``sample:NAME`` for one that ships with the package.
      allowed: kinds that will do; none given: any.

    Raises:
      UsageError: there is no such folder, it was not made by ``vlbeit_jax.prepare`` or by one of
        another format, or it is of another kind.
    """
    folder = (
        SAMPLE_FOLDER / place.removeprefix(SAMPLE_PREFIX)
        if place.startswith(SAMPLE_PREFIX)
        else place_of(place)
    )
    if not (folder / META_FILE).is_file():
        raise UsageError(f"data set {place!r}: {folder} {_why_no_set(folder)}")
    meta = json.loads((folder / META_FILE).read_text())
    if meta.get("format") != FORMAT:
        raise UsageError(
            f"data set {place!r} has format {meta.get('format')}, but this version reads format "
            f"{FORMAT}, with other splits, another order and another fingerprint; prepare it again "
            "from its source with python -m vlbeit_jax.prepare"
        )
    kind = Kind(meta["kind"])
    if allowed and kind not in allowed:
        raise UsageError(
            f"data set {place!r} holds {kind}, but {' or '.join(allowed)} are needed here"
        )
    return PreparedSet(folder, kind, meta)


def open_sets_once(places: Sequence[str], *allowed: Kind) -> list[PreparedSet]:
    """Opens several prepared data sets, none of which may be there twice.

    Args:
      places: as in ``open_set``.
      allowed: kinds that will do; none given: any.

    Raises:
      UsageError: see ``open_set``; or two of them hold the same records, so that these would count
        twice.
    """
    sets = [open_set(place, *allowed) for place in places]
    first: dict[str, str] = {}
    for place, each in zip(places, sets, strict=True):
        other = first.setdefault(each.fingerprint, place)
        if other != place:
            raise UsageError(
                f"data sets {other!r} and {place!r} hold the same records "
                f"({each.fingerprint}); name one of them"
            )
    if repeated := [place for place in first.values() if places.count(place) > 1]:
        raise UsageError(
            f"data set {repeated[0]!r} is named {places.count(repeated[0])} times; name it once "
            "(a flag that is given again adds a set)"
        )
    return sets
