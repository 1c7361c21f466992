"""The records of a split, in the order in which they were written; errors name file and record."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vlbeit_jax.data.bad_records import TOO_LARGE, UNREADABLE, BadRecord
from vlbeit_jax.data.headers import pixels_in_header
from vlbeit_jax.data.records import Records
from vlbeit_jax.storage import raise_if_away


class SetRecords:
    """Random access to the records of the shards of a split."""

    def __init__(
        self,
        records: Records,
        files: Sequence[pathlib.Path],
        lengths: Sequence[int],
        in_turn: bool,
        pictures: Sequence[str],
        max_pixels: int,
    ):
        """Takes the records of all shards, one shard after the other.

        Args:
          records: that TFDS reads.
          files: the shards.
          lengths: their numbers of records.
          in_turn: whether records were written to each shard in turn; otherwise they fill one shard
            after the other.
          pictures: fields that hold an encoded picture.
          max_pixels: height times width of a picture, at most, as its header states it.
        """
        self._records, self._files, self._in_turn = records, list(files), in_turn
        self._starts = np.cumsum([0, *lengths]).tolist()
        self._pictures, self._max_pixels = tuple(pictures), max_pixels

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """Returns a record.

        Raises:
          BadRecord: it cannot be read, or a picture is too large to be decoded.
          StorageError: no file can be read here and now. Another host may read the same record, so
            no other one may take its place.
        """
        if not 0 <= index < len(self):
            raise IndexError(index)
        try:
            found = self._records[self._stored(index)]
        except MemoryError:
            raise
        except Exception as error:  # ArrayRecord, TFDS and protobuf raise errors of many types.
            raise_if_away(error, self._files[0].parent)
            raise BadRecord(
                UNREADABLE,
                f"{self.place(index)} cannot be read ({error!r}); the file is damaged or cut off",
            ) from error
        for name in self._pictures:
            pixels = pixels_in_header(found[name])
            if pixels and pixels > self._max_pixels:
                raise BadRecord(
                    TOO_LARGE,
                    f"{self.place(index)}: its {name} has {pixels:,} pixels, more than the "
                    f"{self._max_pixels:,} with which the set was prepared",
                )
        return found

    def place(self, index: int) -> str:
        """Returns in words where a record is: file and number, counted from 0."""
        stored = self._stored(index)
        shard = int(np.searchsorted(self._starts, stored, side="right")) - 1
        count = self._starts[shard + 1] - self._starts[shard]
        return f"{self._files[shard]}, record {stored - self._starts[shard]} of {count}"

    def _stored(self, index: int) -> int:
        """Returns the number of a record in the files, one file after the other."""
        if not self._in_turn:
            return index
        place, shard = divmod(index, len(self._files))
        return self._starts[shard] + place
