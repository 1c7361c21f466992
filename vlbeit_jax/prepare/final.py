"""Writes the shards of the finished set: the file of a part as it is, or records from parts."""

import dataclasses
import hashlib
import itertools
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from vlbeit_jax.copies import on_disk, second_name, staged
from vlbeit_jax.data.content import record_digest
from vlbeit_jax.data.identity import text_key
from vlbeit_jax.data.shards import facts_of
from vlbeit_jax.places import fetched
from vlbeit_jax.prepare.divide import Change, Shard
from vlbeit_jax.prepare.encoding import Encoder
from vlbeit_jax.prepare.parts import records_file, sha256_of
from vlbeit_jax.prepare.work_plan import WorkPlan
from vlbeit_jax.prepare.write_part import features_of

AT_ONCE = 256  # Records in memory.
# So that the memory does not depend on the machine.
ONE_THREAD = "readahead_buffer_size:0,max_parallelism:0"
KNOWN_FILE = "training_captions.npy"


@dataclasses.dataclass(frozen=True)
class Made:
    """What is known of a file.

    Attributes:
      size: of its records.
      sha256: of the file.
      facts: ``data.shards.facts_of`` it.
      digests: of records that were changed.
    """

    size: int
    sha256: str
    facts: Mapping[str, Any]
    digests: Mapping[tuple[int, int], bytes]


def make_shard(plan: WorkPlan, shard: Shard) -> Made:
    """Writes a file."""
    if shard.as_it_is:
        part = plan.finished(shard.pieces[0].part)
        assert part is not None, "all parts are finished by now"
        source = records_file(plan.parts_folder, shard.pieces[0].part, shard.split)
        second_name(source, shard.path)
        return Made(part.bytes[shard.split], part.sha256[shard.split], facts_of(source), {})
    with staged(shard.path) as path:
        size, digests = _write(plan, shard, path)
        return Made(size, sha256_of(path), facts_of(path), digests)


def _write(
    plan: WorkPlan, shard: Shard, path: pathlib.Path
) -> tuple[int, dict[tuple[int, int], bytes]]:
    """Writes the records of a shard; returns their size and the digests of those changed."""
    writer, size, digests = ArrayRecordWriter(str(path), "group_size:1"), 0, {}
    encoder, known = Encoder(features_of(plan)), _known(plan, shard)
    try:
        for place, encoded in _records(plan, shard):
            if place in shard.changes:
                record = _changed(plan, shard, encoder, encoded, shard.changes[place], known)
                encoded, digests[place] = encoder.encode(record), record_digest(record)
            writer.write(encoded)
            size += len(encoded)
    finally:
        writer.close()
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return size, digests


def _known(plan: WorkPlan, shard: Shard) -> np.ndarray:
    """Returns the keys of the captions of training, if records of the shard lose some."""
    if not any(change.filtered for change in shard.changes.values()):
        return np.zeros(0, np.uint64)
    return np.load(fetched(plan.folder / KNOWN_FILE), mmap_mode="r")


def content_of(shards: Sequence[Shard], digests: Iterator[bytes]) -> list[str]:
    """Returns the hash of the content of each file, from the digests of all records in order."""
    return [
        hashlib.sha256(b"".join(itertools.islice(digests, shard.count()))).hexdigest()
        for shard in shards
    ]


def _records(plan: WorkPlan, shard: Shard) -> Iterator[tuple[tuple[int, int], bytes]]:
    """Yields part, number and bytes of each record."""
    for piece in shard.pieces:
        # Most of a part is read, so it is copied from a bucket first.
        with on_disk(records_file(plan.parts_folder, piece.part, shard.split)) as path:
            reader = ArrayRecordReader(str(path), ONE_THREAD)
            for start in range(0, len(piece.numbers), AT_ONCE):
                numbers = piece.numbers[start : start + AT_ONCE].tolist()
                for number, encoded in zip(numbers, reader.read(numbers), strict=True):
                    yield (piece.part, number), encoded
            reader.close()


def _changed(
    plan: WorkPlan,
    shard: Shard,
    encoder: Encoder,
    encoded: bytes,
    change: Change,
    known: np.ndarray,
) -> dict[str, Any]:
    """Returns a record as the finished set has it.

    Args:
      plan: of the work.
      shard: that the record is in.
      encoder: of its bytes.
      encoded: the record as its part has it.
      change: what is different.
      known: sorted keys of the captions of training.
    """
    record = encoder.decode(encoded)
    for part, number in change.joined:
        reader = reader_of(plan, shard.split, part)
        other = encoder.decode(reader.read([number])[0])
        reader.close()
        record["captions"] += [each for each in other["captions"] if each not in record["captions"]]
    if change.filtered:
        keys = np.array(list(map(text_key, record["captions"])), np.uint64)
        # A search, as ``known`` is a file that need not fit into memory, and np.isin would read it.
        places = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        stay = known[places] != keys
        record["captions"] = list(itertools.compress(record["captions"], stay))
    record["id"] += change.renamed
    return record


def reader_of(plan: WorkPlan, split: str, part: int) -> ArrayRecordReader:
    """Opens the records of a part, to read few of them.

    From a bucket, each is then read by itself; ``on_disk`` would copy the whole part first.
    """
    return ArrayRecordReader(str(records_file(plan.parts_folder, part, split)), ONE_THREAD)
