"""Equal and similar records: counted, merged or removed, in a set and against others."""

import cv2
import numpy as np
import pytest

from tests.make_data import build, build_texts, encoded, records, write_tar
from vlbeit_jax.data.identity import HELD_OUT, TRAIN, VALIDATION
from vlbeit_jax.data.source import open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare import duplicates
from vlbeit_jax.prepare.formats import base
from vlbeit_jax.prepare.pictures import Limits, examined
from vlbeit_jax.types import Kind


def photograph(seed, side=96):
    """A picture with structure at all sizes, in RGB."""
    rng = np.random.default_rng(seed)
    total = np.zeros((side, side, 3))
    for size in (3, 6, 12, 24):
        coarse = rng.normal(0, 1, (size, size, 3))
        total += cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    return np.clip(128 + 40 * total, 0, 255).astype(np.uint8)


def jpeg(pixels, quality=92):
    return encoded(pixels, "JPEG", quality=quality)


def variants(seed):
    """The same picture as other sites have it."""
    pixels = photograph(seed)
    half = cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    double = cv2.resize(pixels, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    return [jpeg(pixels, 50), jpeg(half), jpeg(double), encoded(pixels, "PNG")]


def tar(path, pictures, captions=None):
    members = []
    for number, content in enumerate(pictures):
        said = captions[number] if captions else f"caption {number}"
        members += [(f"{number:03d}.jpg", content), (f"{number:03d}.txt", said.encode())]
    return write_tar(path, members)


def test_equal_pictures_are_counted_and_merged_when_asked(tmp_path, monkeypatch):
    """Also if they are in different parts; their captions are joined, in order, each once."""
    monkeypatch.setattr(base, "UNIT_TEXT", 1)
    files = [jpeg(photograph(i)) for i in range(6)]
    inputs = [
        tar(tmp_path / "0.tar", files[:4], ["a", "b", "c", "d"]),
        tar(tmp_path / "1.tar", [files[0], files[5], files[1], files[0]], ["e", "f", "b", "a"]),
    ]
    options = {"validation_share": 0, "shards": 1}
    meta = build(tmp_path / "all", Kind.PAIRS, inputs, **options)
    assert meta["duplicates"] == 3 and meta["counts"] == {TRAIN: 8}
    for workers in (0, 2):
        out = tmp_path / f"merged-{workers}"
        meta = build(out, Kind.PAIRS, inputs, deduplicate=True, workers=workers, **options)
        assert meta["left_out"] == {"duplicate": 3} and meta["counts"] == {TRAIN: 5}
        said = [[text.decode() for text in record["captions"]] for record in records(out)]
        assert said == [["a", "e"], ["b"], ["c"], ["d"], ["f"]]
        stated = open_set(str(out))
        from vlbeit_jax.data.content import fingerprint_of

        assert fingerprint_of(stated.kind, {TRAIN: records(out)}) == stated.fingerprint
        assert stated.meta["keys"] == {TRAIN: {"pictures": 5, "texts": 6}}
    meta = build(tmp_path / "images", Kind.IMAGES, inputs, deduplicate=True, **options)
    assert meta["counts"] == {TRAIN: 5}


def test_equal_texts_are_merged_when_asked(tmp_path):
    lines = ["one text", "another text", "One  Text", "a third"]
    place = build_texts(tmp_path, "all", lines, validation_share=0)
    assert open_set(str(place)).meta["duplicates"] == 1
    place = build_texts(tmp_path, "merged", lines, validation_share=0, deduplicate=True)
    texts = [record["text"] for record in records(place)]
    assert texts == [b"one text", b"another text", b"a third"]


def test_other_sizes_and_qualities_look_alike_and_other_pictures_do_not():
    found = 0
    for seed in range(40):
        own = examined(jpeg(photograph(seed)), Limits()).look
        for file in variants(seed):
            look = examined(file, Limits()).look
            found += sum(bin(a ^ b).count("1") for a, b in zip(own, look, strict=True)) <= 3
    assert found >= 0.9 * 160
    looks = [examined(jpeg(photograph(seed)), Limits()).look for seed in range(300)]
    assert not duplicates._later(np.array(looks, np.uint64)).any()


def test_bands_find_what_comparing_all_pairs_finds():
    rng = np.random.default_rng(0)
    looks = rng.integers(0, 2**63, (300, 2)).astype(np.uint64)
    for row in range(0, 300, 2):  # Every other one differs from one before in up to five bits.
        looks[row] = looks[rng.integers(300)]
        for bit in rng.choice(128, rng.integers(6), replace=False):
            looks[row, bit // 64] ^= np.uint64(1 << int(bit % 64))
    distance = np.bitwise_count(looks[:, None] ^ looks[None]).sum(-1)
    later = np.array([(distance[row, :row] <= 3).any() for row in range(300)])
    assert np.array_equal(duplicates._later(looks), later) and 50 < later.sum() < 200
    alike = (distance[:150, 150:] <= 3).any(1)
    assert np.array_equal(duplicates.alike(looks[:150], looks[150:]), alike) and alike.any()


@pytest.mark.parametrize("what", ["report", "remove"])
def test_similar_pictures_of_a_set_and_of_others(tmp_path, what):
    """The first of them stays; one that another set holds out is not trained on."""
    theirs = [jpeg(photograph(i)) for i in range(100, 105)]
    held = tar(tmp_path / "held.tar", theirs, [f"theirs {i}" for i in range(5)])
    build(tmp_path / "held", Kind.PAIRS, [held], validation_share=1)
    pictures = [jpeg(photograph(i)) for i in range(10)] + variants(0)[::3] + variants(102)[:1]
    ours = tar(tmp_path / "ours.tar", pictures)
    meta = build(
        tmp_path / "ours",
        Kind.PAIRS,
        [ours],
        validation_share=0,
        apart_from=[str(tmp_path / "held")],
        near_duplicates=what,
    )
    assert meta["near_duplicates"] == {
        "near_duplicate": {TRAIN: 2},
        "near_duplicate_of_another_set": {TRAIN: 1},
    }
    if what == "report":
        assert meta["counts"] == {TRAIN: 13} and not meta["left_out"]
        return
    assert meta["counts"] == {TRAIN: 10}
    assert meta["left_out"] == {"near_duplicate": 2, "near_duplicate_of_another_set": 1}
    ids = [record["id"].decode() for record in records(tmp_path / "ours")]
    assert ids == [f"ours/{number:03d}" for number in range(10)]
    looks = np.load(tmp_path / "ours" / "looks-train.npy")
    assert np.array_equal(looks, duplicates.looks_of(open_set(str(tmp_path / "ours")), TRAIN))
    (tmp_path / "ours" / "looks-train.npy").unlink()  # Without it, the pictures are read.
    assert np.array_equal(looks, duplicates.looks_of(open_set(str(tmp_path / "ours")), TRAIN))


def test_a_held_out_picture_that_looks_like_one_of_training_is_the_one_to_go(tmp_path):
    pictures = [file for i in range(20) for file in (jpeg(photograph(i)), variants(i)[0])]
    ours = tar(tmp_path / "ours.tar", pictures)
    options = {"validation_share": 0.5}
    build(tmp_path / "all", Kind.IMAGES, [ours], **options)
    meta = build(tmp_path / "set", Kind.IMAGES, [ours], near_duplicates="remove", **options)
    before = {r["id"] for r in records(tmp_path / "all", TRAIN)}
    held = {r["id"] for r in records(tmp_path / "set", VALIDATION)}
    looks = duplicates.looks_of(open_set(str(tmp_path / "set")), TRAIN)
    others = duplicates.looks_of(open_set(str(tmp_path / "set")), VALIDATION)
    assert held and before and not duplicates.alike(others, looks).any()
    assert meta["left_out"]["near_duplicate"] >= 15 and VALIDATION in HELD_OUT


def test_kinds_with_several_records_of_a_picture_are_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a", "label": "b"}\n')
    for option in ({"deduplicate": True}, {"near_duplicates": "report"}):
        with pytest.raises(UsageError, match=r"is for .*, but --kind=labelled_texts"):
            build(
                tmp_path / "set",
                Kind.LABELLED_TEXTS,
                [tmp_path / "a.jsonl"],
                source_format="jsonl",
                **option,
            )
