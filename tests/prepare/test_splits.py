"""No picture or text is on both sides of the split, within a set or between sets of one source."""

import unicodedata

import numpy as np
import pytest

from tests.make_data import (
    build,
    build_texts,
    encoded,
    in_memory,
    keys,
    pair,
    picture,
    records,
    sentence,
    write_tar,
)
from vlbeit_jax.data.identity import KEYS, PICTURES, TEST, TEXTS, picture_digest, split_of, text_key
from vlbeit_jax.data.source import TRAIN, VALIDATION, open_set
from vlbeit_jax.prepare.check import Limits
from vlbeit_jax.prepare.writer import write_set
from vlbeit_jax.types import Kind

BLANK = "\N{ZERO WIDTH NO-BREAK SPACE}"  # Also the byte-order mark.


def variants(text):
    """One text as different pages write it."""
    wide = text.replace(" ", "\N{IDEOGRAPHIC SPACE}").replace(
        "a", "\N{FULLWIDTH LATIN SMALL LETTER A}"
    )
    marked = text.replace(" ", "\N{ZERO WIDTH SPACE} ").replace("e", "e\N{SOFT HYPHEN}")
    spaced = f"  {text.replace(' ', '   ')} "
    return [
        text,
        text.upper(),
        spaced,
        unicodedata.normalize("NFD", text),
        wide,
        f"{text}\n",
        BLANK + text,
        text + BLANK,
        marked,
    ]


def ids(folder, split):
    found = open_set(str(folder))
    return (
        {record["id"].decode() for record in records(folder, split)}
        if found.count(split)
        else set()
    )


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """Sets made of a tar of 240 random pairs of 80 pictures and 90 captions, some in variants."""
    folder = tmp_path_factory.mktemp("crowded")
    rng = np.random.default_rng(0)
    captions = [f"größe {sentence(i, 4)} déjà vu ﬁn {i}" for i in range(90)]
    members = []
    for i in range(240):
        caption = captions[i] if i < 90 else str(rng.choice(variants(captions[rng.integers(10)])))
        members += pair(f"{i:03d}", int(rng.integers(80)) if i >= 90 else i % 80, caption)
    tar = write_tar(folder / "crowded.tar", members)
    metas = {
        name: build(folder / name, kind, [tar], validation_share=0.5, **options)
        for name, kind, options in (
            ("pairs", Kind.PAIRS, {}),
            ("images", Kind.IMAGES, {}),
            ("small", Kind.IMAGES, {"limits": Limits(short_side=20)}),
            ("shards", Kind.PAIRS, {"shards": 7}),
        )
    }
    return folder, metas


def test_nothing_stands_in_both_parts(crowded):
    folder, metas = crowded
    for name, kinds in (("pairs", KEYS), ("images", (PICTURES,))):
        for what in kinds:
            parts = [keys(folder / name, what, split) for split in (TRAIN, VALIDATION)]
            assert min(map(len, parts)) >= 15 and not parts[0] & parts[1]
    read = [
        {text_key(c.decode()) for r in records(folder / "pairs", s) for c in r["captions"]}
        for s in (TRAIN, VALIDATION)
    ]
    assert not read[0] & read[1]  # Not by the keys alone.
    left_out = metas["pairs"]["left_out"]
    assert (
        left_out.keys() == {"caption_in_training"}
        and sum(metas["pairs"]["counts"].values()) + left_out["caption_in_training"] == 240
    )


def test_only_held_out_pairs_whose_caption_training_has_are_left_out(crowded):
    folder, _ = crowded
    for split in (TRAIN, VALIDATION):
        assert ids(folder / "pairs", split) <= ids(folder / "images", split)
    assert ids(folder / "pairs", TRAIN) == ids(folder / "images", TRAIN)
    gone = ids(folder / "images", VALIDATION) - ids(folder / "pairs", VALIDATION)
    assert gone and all(
        int(name.split("/")[1]) < 10 or int(name.split("/")[1]) >= 90 for name in gone
    )


def test_sets_of_the_same_files_are_split_alike(crowded):
    """It was by caption for pairs: of 56 held-out pictures, 50 were trained on as images alone."""
    folder, _ = crowded
    held = keys(folder / "pairs", PICTURES, VALIDATION)
    for name in ("images", "small", "shards"):
        for split in (TRAIN, VALIDATION):
            assert keys(folder / name, PICTURES, split) == keys(
                folder / "images" if name == "small" else folder / name, PICTURES, split
            )
        assert len(held) > 15 and not held & keys(folder / name, PICTURES, TRAIN)
    assert [r["sha256"] for r in records(folder / "small")] == [
        r["sha256"] for r in records(folder / "images")
    ]
    assert (
        records(folder / "small")[0]["image"] != records(folder / "images")[0]["image"]
    )  # Encoded again, and yet the same picture.


def test_a_mark_that_nobody_sees_changes_no_side(tmp_path):
    """Of 20 captions with and without a byte-order mark, 13 were in both parts."""
    captions = [f"caption {i}" for i in range(20)]
    members = [
        each
        for i, text in enumerate(captions)
        for each in pair(f"{2 * i}", 2 * i, text) + pair(f"{2 * i + 1}", 2 * i + 1, BLANK + text)
    ]
    build(
        tmp_path / "set",
        Kind.PAIRS,
        [write_tar(tmp_path / "bom.tar", members)],
        validation_share=0.5,
    )
    parts = [
        {c.decode().strip(BLANK) for r in records(tmp_path / "set", split) for c in r["captions"]}
        for split in (TRAIN, VALIDATION)
    ]
    assert min(map(len, parts)) >= 2 and not parts[0] & parts[1]


def test_equal_texts_never_stand_in_both_splits(tmp_path):
    lines = [f"größe {sentence(i, 4)} déjà vu ﬁn {i}" for i in range(30)]
    written = [f"{text.strip()} " for line in lines for text in variants(line)]
    place = build_texts(tmp_path, "texts", written, validation_share=0.5)
    parts = [
        [text_key(record["text"].decode()) for record in records(place, split)]
        for split in (TRAIN, VALIDATION)
    ]
    assert sum(map(len, parts)) == len(written) and min(map(len, parts)) > 60
    assert len(set(parts[0]) | set(parts[1])) == 30 and not set(parts[0]) & set(parts[1])


def test_a_picture_with_many_captions_keeps_those_that_training_has_not(tmp_path, monkeypatch):
    from vlbeit_jax.prepare.formats import FORMATS
    from vlbeit_jax.prepare.item import Item

    files = [encoded(picture(i)) for i in range(40)]
    sides = [split_of(int(picture_digest(file)[:16], 16), 0.5) for file in files]
    held = [file for file, side in zip(files, sides, strict=True) if side == VALIDATION]
    trained = next(file for file, side in zip(files, sides, strict=True) if side == TRAIN)
    found = [
        Item("0", held[0], ("seen", "own", "Seen ")),
        Item("1", held[1], ("seen",)),
        Item("2", trained, ("seen", "other")),
    ]
    monkeypatch.setitem(FORMATS, "webdataset", in_memory(found))
    (tmp_path / "a.tar").touch()
    meta = build(tmp_path / "set", Kind.PAIRS, [tmp_path / "a.tar"], validation_share=0.5)
    assert meta["left_out"] == {"caption_in_training": 1} and meta["counts"] == {
        TRAIN: 1,
        VALIDATION: 1,
    }
    (record,) = records(tmp_path / "set", VALIDATION)
    assert [caption.decode() for caption in record["captions"]] == ["own"]
    (record,) = records(tmp_path / "set", TRAIN)
    assert [caption.decode() for caption in record["captions"]] == ["seen", "other"]
    assert not [
        path for path in tmp_path.iterdir() if path.name not in ("a.tar", "set")
    ]  # The file of those that wait is gone.


@pytest.mark.parametrize("what", KEYS)
def test_nobody_can_write_a_set_with_one_thing_in_both_parts(tmp_path, what):
    records = [
        {
            "id": f"{i}",
            "source": "",
            "image": encoded(picture(0 if what == PICTURES else i)),
            "captions": ["A" if what == TEXTS else f"{i}"],
        }
        for i in range(2)
    ]
    with pytest.raises(ValueError, match=f"1 {what} are in two splits"):
        write_set(
            tmp_path / "set",
            Kind.PAIRS,
            zip((TRAIN, VALIDATION), records, strict=True),
            shards=1,
            meta={},
        )
    assert not list(tmp_path.iterdir())


def test_two_held_out_parts_may_share_a_caption(tmp_path):
    """Nothing is trained on either, and short captions repeat. The control is the test above."""
    records = [
        {"id": f"{i}", "source": "", "image": encoded(picture(i)), "captions": ["A"]}
        for i in range(2)
    ]
    placed = zip((VALIDATION, TEST), records, strict=True)
    meta = write_set(tmp_path / "set", Kind.PAIRS, placed, shards=1, meta={})
    assert meta["counts"] == {TEST: 1, VALIDATION: 1}
