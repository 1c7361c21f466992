"""What all examples have in common: their types, and the fields of every row."""

import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from vlbeit_jax.data.bad_records import NO_CAPTION, BadRecord
from vlbeit_jax.data.draws import Draws

Example = dict[str, np.ndarray | np.generic]
# A function of a record and of its own draws, and of nothing else. So an example is the same in any
# process, thread or order. Frozen dataclasses, because loader processes receive a copy.
Transform = Callable[[Mapping[str, Any], Draws], Example]


class Spec(NamedTuple):
    """Shape and type of one array of an example."""

    shape: tuple[int, ...]
    dtype: type[np.generic]


ROW_SPECS = {"weight": Spec((), np.float32), "uid": Spec((), np.uint32)}


def row_fields(record: Mapping[str, Any]) -> Example:
    """Returns the fields of ``ROW_SPECS``, which every example has.

    Returns:
      ``weight``, 0 for a row that only fills up a batch; and ``uid``, which names the record, so
      that several examples of one record can be recognised.
    """
    return {
        "weight": np.float32(record.get("weight", 1)),
        "uid": np.uint32(zlib.crc32(record_id(record).encode())),
    }


def record_id(record: Mapping[str, Any]) -> str:
    """Returns the record's id; TFDS reads strings as bytes."""
    return record["id"].decode() if isinstance(record["id"], bytes) else record["id"]


def caption_of(record: Mapping[str, Any], draws: Draws | None) -> str:
    """Returns a caption of a record: a random one, or without ``draws`` the first.

    Raises:
      BadRecord: it has none.
    """
    captions = record["captions"]
    if not len(captions):
        raise BadRecord(NO_CAPTION, f"record {record_id(record)!r} has no caption")
    caption = captions[draws.below(len(captions)) if draws else 0]
    return caption.decode() if isinstance(caption, bytes) else caption
