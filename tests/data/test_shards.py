"""Shards that are not those that were written are refused, and the file is named."""

import errno
import json
import shutil

import pytest

from vlbeit_jax.data.shards import END, facts_of
from vlbeit_jax.data.source import META_FILE, TRAIN, VALIDATION, open_set
from vlbeit_jax.errors import BadData, StorageError


@pytest.fixture
def copied(pairs, tmp_path):
    shutil.copytree(pairs, tmp_path / "set")
    return tmp_path / "set"


def shard_of(folder, split=TRAIN):
    return next(folder.glob(f"pairs-{split}.array_record-*"))


def without_facts(folder, *names):
    meta = json.loads((folder / META_FILE).read_text())
    for shard in meta["shards"].values():
        for name in names:
            del shard[name]
    (folder / META_FILE).write_text(json.dumps(meta))


def exchanged(folder, content):
    shard_of(folder).write_bytes(content)


DAMAGE = {
    "missing": (lambda folder, other: shard_of(folder).unlink(), "is missing"),
    "cut in half": (
        lambda folder, other: exchanged(
            folder, (c := shard_of(folder).read_bytes())[: len(c) // 2]
        ),
        "has 65,536 bytes, but 131,072 were written",
    ),
    "empty": (lambda folder, other: exchanged(folder, b""), "has 0 bytes, but 131,072"),
    "another program's": (
        lambda folder, other: exchanged(folder, shard_of(other).read_bytes()),
        "holds something else: its SHA-256 of its ends",
    ),
    "bytes at the end": (
        lambda folder, other: exchanged(folder, shard_of(folder).read_bytes()[:-1] + b"?"),
        "holds something else",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_wrong_shard_is_named(copied, few_pairs, what):
    """Two sets of other pictures have files of equal sizes, because these are whole blocks."""
    damage, said = DAMAGE[what]
    open_set(str(copied)).require_shards(TRAIN, whole=True)
    damage(copied, few_pairs)
    found = open_set(str(copied))
    name = shard_of(few_pairs).name
    with pytest.raises(BadData, match=f"set: of 1 shards, 1 are not .*: {name} {said}.*copy them"):
        found.require_shards(TRAIN)
    with pytest.raises(BadData, match=name):
        found.records(TRAIN)
    found.require_shards(VALIDATION)


@pytest.mark.parametrize("what", ["missing", "cut in half", "empty", "another program's"])
def test_sets_of_earlier_versions_are_checked_by_their_counts(copied, few_pairs, what):
    without_facts(copied, "size", "ends_sha256")
    open_set(str(copied)).require_shards(TRAIN)
    DAMAGE[what][0](copied, few_pairs)
    said = {
        "missing": "is missing",
        "another program's": "has 18 records, but 54 were written",
    }.get(what, "cannot be read")
    with pytest.raises(BadData, match=said):
        open_set(str(copied)).require_shards(TRAIN)


def test_a_bit_between_the_ends_is_found_where_every_byte_is_read(copied, tmp_path):
    shard = shard_of(copied)
    shard.write_bytes(bytes(END) + b"?" * 10 + bytes(END))
    meta = json.loads((copied / META_FILE).read_text())
    meta["shards"][shard.name] |= facts_of(shard)
    (copied / META_FILE).write_text(json.dumps(meta))
    found = open_set(str(copied))
    found.require_shards(TRAIN)
    with pytest.raises(BadData, match="its sha256 is not the one written"):
        found.require_shards(TRAIN, whole=True)
    found.require_shards(TRAIN, whole=True, part=(1, 2))  # Another process checks the one shard.


def test_the_sample_is_checked(copied):
    for name in ("sample:pairs", "sample:emoji", "sample:texts"):
        for split in (TRAIN, VALIDATION):
            open_set(name).require_shards(split)


def test_a_shard_that_the_disk_cannot_read_is_not_another_one(copied, monkeypatch):
    """It may be right, so there is nothing to copy again."""

    def fails(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("vlbeit_jax.data.shards._ends", fails)
    name = shard_of(copied).name
    with pytest.raises(StorageError, match=f"{name} fails: Input/output error; see what"):
        open_set(str(copied)).require_shards(TRAIN)
