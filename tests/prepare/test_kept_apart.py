"""``--apart_from``: what another set holds out is not trained on, and the other way round."""

import json

import pytest

from tests.make_data import build, encoded, keys, pair, picture, records, write_tar
from vlbeit_jax.data.identity import KEYS, PICTURES, TEXTS, picture_digest, split_of
from vlbeit_jax.data.source import TRAIN, VALIDATION
from vlbeit_jax.errors import UsageError
from vlbeit_jax.types import Kind


def test_sets_are_kept_apart_when_asked_to(tmp_path):
    """A set that is held out whole, and another that trains on some of it, until it is told."""
    ours = [each for i in range(60) for each in pair(f"{i:03d}", i, f"own {i}")]
    theirs = [each for i in range(50, 80) for each in pair(f"{i:03d}", i, f"other {i}")] + pair(
        "x", 900, "Own 3"
    )
    held = build(
        tmp_path / "held",
        Kind.PAIRS,
        [write_tar(tmp_path / "held.tar", theirs)],
        validation_share=1,
    )
    tar = write_tar(tmp_path / "ours.tar", ours)
    build(tmp_path / "ours", Kind.PAIRS, [tar])
    assert keys(tmp_path / "ours", PICTURES, TRAIN) & keys(tmp_path / "held", PICTURES, VALIDATION)
    meta = build(tmp_path / "apart", Kind.PAIRS, [tar], apart_from=[str(tmp_path / "held")])
    for what in KEYS:
        assert not keys(tmp_path / "apart", what, TRAIN) & keys(tmp_path / "held", what, VALIDATION)
    assert (
        meta["apart_from"] == [held["fingerprint"]]
        and sum(meta["counts"].values()) + sum(meta["left_out"].values()) == 60
    )
    trained = [
        i
        for i in range(60)
        if split_of(int(picture_digest(encoded(picture(i, 40, 48)))[:16], 16), 0.1) == TRAIN
    ]
    assert (
        meta["left_out"]["held_out_in_another_set"]
        == len([i for i in trained if i >= 50 or i == 3])
        > 5
    )
    meta = build(
        tmp_path / "held2",
        Kind.PAIRS,
        [tmp_path / "held.tar"],
        validation_share=1,
        apart_from=[str(tmp_path / "ours")],
    )
    assert meta["left_out"] == {
        "trained_on_in_another_set": len([i for i in trained if i >= 50 or i == 3])
    }
    for what in KEYS:
        assert not keys(tmp_path / "ours", what, TRAIN) & keys(tmp_path / "held2", what, VALIDATION)


def test_texts_are_kept_apart_from_captions(tmp_path):
    build(
        tmp_path / "held",
        Kind.PAIRS,
        [write_tar(tmp_path / "a.tar", pair("0", 0, "A document."))],
        validation_share=1,
    )
    (tmp_path / "texts.txt").write_text("a document.\nanother one\n")
    meta = build(
        tmp_path / "set",
        Kind.TEXTS,
        [tmp_path / "texts.txt"],
        validation_share=0,
        apart_from=[str(tmp_path / "held")],
    )
    assert meta["left_out"] == {"held_out_in_another_set": 1} and [
        r["text"] for r in records(tmp_path / "set")
    ] == [b"another one"]
    with pytest.raises(UsageError, match="does not exist"):
        build(
            tmp_path / "other",
            Kind.TEXTS,
            [tmp_path / "texts.txt"],
            apart_from=[str(tmp_path / "none")],
        )
    assert json.loads((tmp_path / "set" / "vlbeit_meta.json").read_text())["keys"] == {
        TRAIN: {TEXTS: 1}
    }
