"""Any process makes the same set, to the byte; the number of shards changes no content."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from tests.make_data import build, build_texts, pair_members, records, sentence, write_tar
from vlbeit_jax.data.content import ContentFingerprint, fingerprint_of, record_digest
from vlbeit_jax.data.source import META_FILE, TRAIN, VALIDATION, open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.writer import write_set
from vlbeit_jax.types import Kind


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def prepared(tmp_path, name, hash_seed, *arguments):
    """By the command, in a process of its own."""
    command = [sys.executable, "-m", "vlbeit_jax.prepare", f"--out={tmp_path / name}", *arguments]
    subprocess.run(
        command,
        check=True,
        capture_output=True,
        env={"PYTHONHASHSEED": hash_seed, "PATH": "", "HOME": str(tmp_path)},
    )
    return contents(tmp_path / name)


@pytest.mark.parametrize("kind", ["pairs", "texts"])
def test_two_processes_write_the_same_bytes(tmp_path, kind):
    """Protobuf orders maps differently in every process: six processes gave six orders."""
    source = (
        write_tar(tmp_path / "a.tar", pair_members(12)) if kind == "pairs" else tmp_path / "a.txt"
    )
    if kind == "texts":
        source.write_text("".join(f"{sentence(i)}\n" for i in range(12)))
    arguments = (
        f"--kind={kind}",
        f"--format={'webdataset' if kind == 'pairs' else 'text'}",
        f"--input={source}",
        "--validation_share=0.3",
    )
    made = [
        prepared(tmp_path, f"{number}", seed, *arguments)
        for number, seed in enumerate(("1", "random"))
    ]
    here = build(tmp_path / "here", Kind(kind), [source], validation_share=0.3)
    made.append(contents(tmp_path / "here"))
    assert made[0] == made[1] == made[2] and len(made[0]) >= 7
    assert json.loads(made[0][META_FILE])["fingerprint"] == here["fingerprint"]
    sharded = build(tmp_path / "sharded", Kind(kind), [source], validation_share=0.3, shards=5)
    assert sharded["fingerprint"] == here["fingerprint"]
    for split in (TRAIN, VALIDATION):
        assert [r["id"] for r in records(tmp_path / "sharded", split)] == [
            r["id"] for r in records(tmp_path / "here", split)
        ]


def test_the_stated_fingerprint_is_that_of_the_records_that_are_read(tmp_path):
    build(
        tmp_path / "pairs",
        Kind.PAIRS,
        [write_tar(tmp_path / "a.tar", pair_members(30))],
        shards=4,
        validation_share=0.3,
    )
    for place in (
        tmp_path / "pairs",
        build_texts(tmp_path, "texts", map(sentence, range(30)), validation_share=0.3),
    ):
        found = open_set(str(place))
        splits = {split: records(place, split) for split in (VALIDATION, TRAIN)}
        assert fingerprint_of(found.kind, splits) == found.fingerprint
        for split in splits:
            turned = {name: rows[::-1] if name == split else rows for name, rows in splits.items()}
            assert fingerprint_of(found.kind, turned) != found.fingerprint
        assert (
            fingerprint_of(found.kind, {TRAIN: splits[VALIDATION], VALIDATION: splits[TRAIN]})
            != found.fingerprint
        )


def test_each_shard_states_the_hash_of_its_content(tmp_path):
    """Also where records go to the shards in turn."""
    rows = [{"id": f"{i}", "tokens": np.arange(i, i + 4, dtype=np.int32)} for i in range(7)]
    placed = ((TRAIN, row) for row in rows)
    meta = write_set(tmp_path / "set", Kind.TOKENS, placed, shards=3, meta={}, keys={})
    for shard, found in enumerate(meta["shards"].values()):
        digests = b"".join(map(record_digest, rows[shard::3]))
        assert found["content_sha256"] == hashlib.sha256(digests).hexdigest()
    assert meta["fingerprint"] == fingerprint_of("tokens", {TRAIN: rows})


def test_every_field_counts_and_is_framed():
    several = [
        {"id": "a", "captions": ["b", "c"]},
        {"id": "a", "captions": ["bc"]},
        {"id": "a", "captions": ["b"], "c": ""},
        {"id": "a", "captions": []},
        {"id": "a", "caption": ["b", "c"]},
        {"id": "a", "tokens": np.array([1, 2], np.int32)},
        {"id": "a", "tokens": np.array([[1, 2]], np.int32)},
        {"id": "a", "tokens": np.array([1], np.int32)},
        {"id": "a"},
        {},
    ]
    digests = [record_digest(record) for record in several]
    assert len(set(digests)) == len(several)
    read = {"id": b"a", "captions": np.array([b"b", b"c"], object)}
    assert record_digest(read) == digests[0] == record_digest({"captions": ("b", "c"), "id": "a"})
    assert record_digest({"id": "a", "tokens": np.array([1, 2], np.int64)}) == digests[5]
    with pytest.raises(TypeError, match="float"):
        record_digest({"id": 0.5})


def test_the_fingerprint_is_this_one_for_ever():
    found = ContentFingerprint("pairs")
    found.add(
        TRAIN,
        {
            "id": "a/1",
            "source": "1.png",
            "sha256": "00",
            "image": b"\x00\xff",
            "captions": ["ä", ""],
        },
    )
    found.add(VALIDATION, {"id": "a/2", "tokens": np.arange(3, dtype=np.int32)})
    assert found.hexdigest() == FINGERPRINT


FINGERPRINT = "f05defff2f2b"


def test_shards_of_another_set_are_not_taken_for_its_own(tmp_path):
    place = build_texts(tmp_path, "texts", map(sentence, range(30)), shards=2, validation_share=0)
    info = json.loads((place / "dataset_info.json").read_text())
    info["splits"][0]["shardLengths"] = ["20", "10"]
    (place / "dataset_info.json").write_text(json.dumps(info))
    with pytest.raises(UsageError, match=r"\[20, 10\].*\[15, 15\] were written"):
        open_set(str(place)).records(TRAIN)
