"""Prepared sets hold what was given, count what was not, and appear wholly or not at all."""

import hashlib
import itertools
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tests.make_data import (
    build,
    build_texts,
    documents,
    encoded,
    in_memory,
    pair_members,
    picture,
    png_header,
    records,
    sentence,
    write_tar,
)
from vlbeit_jax.data.image import decode
from vlbeit_jax.data.source import META_FILE, TRAIN, VALIDATION
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.formats import FORMATS
from vlbeit_jax.prepare.inputs import expand
from vlbeit_jax.prepare.item import Item
from vlbeit_jax.types import Kind

ALPHA = np.concatenate([picture(90), np.zeros((20, 24, 1), np.uint8)], axis=2)
KEPT = {
    "cmyk": [("cmyk.jpg", encoded(picture(91), "JPEG", "CMYK")), ("cmyk.txt", b"printed")],
    "grey": [
        ("grey.png", encoded(picture(92), "PNG", "L")),
        ("grey.json", b'{"caption": "told by json"}'),
    ],
    "gif": [("gif.gif", encoded(picture(93), "GIF", "P")), ("gif.txt", "schöne Grüße".encode())],
    "alpha": [("alpha.png", encoded(ALPHA, "PNG", "RGBA")), ("alpha.txt", b"wholly transparent")],
}
JPEG = encoded(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), "JPEG")
DROPPED = {
    "undecodable_image": [
        [("cut.jpg", JPEG[: len(JPEG) // 2]), ("cut.txt", b"c")],
        [("two.jpg", JPEG[:-9]), ("two.txt", b"c")],
    ],
    "empty_file": [[("empty.jpg", b""), ("empty.txt", b"c")]],
    "svg_image": [[("svg.jpg", b'<?xml version="1.0"?><svg/>'), ("svg.txt", b"c")]],
    "no_image": [
        [("lone.txt", b"c")],
        [("other.npy", b"x"), ("other.txt", b"c")],
    ],
    "not_an_image": [[("html.jpg", b"<html>404</html>"), ("html.txt", b"c")]],
    "image_too_large": [[("bomb.png", png_header(30_000, 30_000)), ("bomb.txt", b"c")]],
    "image_too_small": [
        [("one.png", encoded(picture(0, 1, 1))), ("one.txt", b"c")],
        [("line.png", encoded(picture(0, 1, 5000))), ("line.txt", b"c")],
    ],
    "image_too_elongated": [[("long.png", encoded(picture(0, 20, 5000))), ("long.txt", b"c")]],
    "no_caption": [
        [("bare.png", encoded(picture(0)))],
        [("blank.png", encoded(picture(0))), ("blank.txt", b" \n")],
    ],
}


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A tar with good and bad members, and what became of it."""
    folder = tmp_path_factory.mktemp("mixed")
    bad = [member for group in DROPPED.values() for members in group for member in members]
    kept = [member for members in KEPT.values() for member in members]
    tar = write_tar(folder / "mixed.tar", [*pair_members(20), *bad, *kept])
    return (
        tar,
        build(folder / "set", Kind.PAIRS, [tar], max_dropped=0.5, licence="CC0"),
        folder / "set",
    )


def test_what_is_dropped_is_counted_by_reason(mixed):
    _, meta, folder = mixed
    assert meta["dropped"] == {reason: len(group) for reason, group in DROPPED.items()}
    assert sum(meta["counts"].values()) == 20 + len(KEPT)
    assert meta == json.loads((folder / META_FILE).read_text())
    assert (meta["kind"], meta["source"], meta["licence"], meta["format"]) == (
        "pairs",
        "mixed.tar",
        "CC0",
        2,
    )
    assert meta["options"]["limits"]["max_pixels"] == 64_000_000


def test_tfds_gives_back_the_very_bytes(mixed):
    _, meta, folder = mixed
    builder = tfds.builder_from_directory(folder)
    assert {name: info.num_examples for name, info in builder.info.splits.items()} == meta["counts"]
    found = [
        record
        for split in meta["counts"]
        for record in builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    ]
    given = dict(pair_members(20)) | {
        name: content for members in KEPT.values() for name, content in members
    }
    for record in found:
        key = record["id"].decode().removeprefix("mixed/")
        if key != "alpha":
            assert record["image"] == next(
                content
                for name, content in given.items()
                if name.startswith(f"{key}.") and name[-3:] != "txt"
            )
        (source,) = (
            name for name in given if name.startswith(f"{key}.") and name[-3:] not in ("txt", "son")
        )
        assert (
            record["source"].decode() == source
            and record["sha256"].decode() == hashlib.sha256(given[source]).hexdigest()
        )
        wanted = b"told by json" if key == "grey" else given[f"{key}.txt"]
        assert list(record["captions"]) == [wanted]
    assert sorted(record["id"].decode() for record in found) == sorted(
        [*(f"mixed/{i:05d}" for i in range(20)), *(f"mixed/{key}" for key in KEPT)]
    )
    plain = builder.as_data_source(TRAIN)[0]["image"]
    assert plain.dtype == np.uint8 and plain.shape[2] == 3


def test_a_transparent_picture_is_stored_on_white(mixed):
    (record,) = (record for record in records(mixed[2]) if record["id"] == b"mixed/alpha")
    assert (decode(record["image"]) == 255).all()


def test_images_alone_need_no_captions(mixed, tmp_path):
    meta = build(tmp_path / "images", Kind.IMAGES, [mixed[0]], max_dropped=0.5)
    assert meta["dropped"] == {
        reason: len(group) for reason, group in DROPPED.items() if reason != "no_caption"
    }
    assert sum(meta["counts"].values()) == 20 + len(KEPT) + len(DROPPED["no_caption"])
    assert records(tmp_path / "images")[0].keys() == {"id", "source", "sha256", "image"}


def test_equal_runs_give_equal_bytes(mixed, tmp_path):
    tar, meta, folder = mixed
    assert build(tmp_path / "again", Kind.PAIRS, [tar], max_dropped=0.5, licence="CC0") == meta
    assert contents(tmp_path / "again") == contents(folder)
    other = write_tar(
        tmp_path / "mixed.tar", [*pair_members(20), *itertools.chain(*KEPT.values())][:-1]
    )
    assert build(tmp_path / "other", Kind.PAIRS, [other])["fingerprint"] != meta["fingerprint"]


@pytest.mark.parametrize("limit, stops", [(0.0, True), (0.24, True), (0.25, False), (1.0, False)])
def test_too_many_drops_leave_nothing_behind(tmp_path, limit, stops):
    tar = write_tar(
        tmp_path / "a.tar", [*pair_members(6), ("x.jpg", b"?"), ("x.txt", b"c"), ("y.txt", b"c")]
    )
    if not stops:
        assert build(tmp_path / "out", Kind.PAIRS, [tar], max_dropped=limit)["dropped"] == {
            "not_an_image": 1,
            "no_image": 1,
        }
        return
    with pytest.raises(UsageError, match="2 of 8 items.*--max_dropped.*not_an_image.*no_image"):
        build(tmp_path / "out", Kind.PAIRS, [tar], max_dropped=limit)
    assert list(tmp_path.iterdir()) == [tar]


def test_a_hopeless_source_is_given_up_early(tmp_path, monkeypatch):
    monkeypatch.setitem(FORMATS, "text", in_memory(Item(f"{i}") for i in range(5000)))
    (tmp_path / "a.txt").touch()
    with pytest.raises(UsageError, match="1000 of 1000 items"):
        build(tmp_path / "out", Kind.TEXTS, [tmp_path / "a.txt"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "kind, content, message",
    [
        (Kind.TEXTS, None, "no such file"),
        (Kind.TEXTS, b"", "no record was left"),
        (Kind.TEXTS, b"fine\n\xff\n", "not UTF-8"),
        (Kind.PAIRS, b"<html>" * 200, "cannot be read as a tar"),
        (Kind.PAIRS, "cut", "cannot be read as a tar"),
        (Kind.IMAGES, "texts only", "no_image"),
    ],
    ids=["missing", "empty", "encoding", "no tar", "cut tar", "no images"],
)
def test_unusable_input_leaves_nothing_behind(tmp_path, kind, content, message):
    source = tmp_path / "input"
    if content == "texts only":
        write_tar(source, [(f"{i}.txt", b"c") for i in range(5)])
    elif content == "cut":
        source.write_bytes(write_tar(source, pair_members(5)).read_bytes()[:1000])
    elif content is not None:
        source.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        build(tmp_path / "out", kind, [source])
    assert list(tmp_path.iterdir()) == ([] if content is None else [source])


@pytest.mark.parametrize("occupied", ["folder", "file"])
def test_an_existing_output_is_left_alone(tmp_path, occupied):
    out, tar = tmp_path / "out", write_tar(tmp_path / "a.tar", pair_members(5))
    if occupied == "folder":
        out.mkdir()
    file = out / "mine" if occupied == "folder" else out
    file.write_text("mine")
    with pytest.raises(UsageError, match="out exists already"):
        build(out, Kind.PAIRS, [tar])
    assert file.read_text() == "mine" and sorted(tmp_path.iterdir()) == [tar, out]
    (tmp_path / "fresh").mkdir()
    assert build(tmp_path / "fresh", Kind.PAIRS, [tar])["counts"]


def test_a_crash_leaves_nothing_behind(tmp_path, monkeypatch):
    def crash():
        yield Item("0", text="one")
        raise KeyboardInterrupt

    monkeypatch.setitem(FORMATS, "text", in_memory(crash()))
    (tmp_path / "a.txt").touch()
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "out", Kind.TEXTS, [tmp_path / "a.txt"])
    assert list(tmp_path.iterdir()) == [tmp_path / "a.txt"]


def test_inputs_are_globbed_in_order(tmp_path):
    for name in ("b.txt", "a.txt", "c.tar"):
        (tmp_path / name).touch()
    (tmp_path / "folder.txt").mkdir()
    assert expand([f"{tmp_path}/c.tar", f"{tmp_path}/*.txt"]) == [
        tmp_path / name for name in ("c.tar", "a.txt", "b.txt")
    ]
    assert expand([f"{tmp_path}/a.txt", f"{tmp_path}/*.txt"]) == [
        tmp_path / "a.txt",
        tmp_path / "b.txt",
    ]
    with pytest.raises(UsageError, match="nothing.*no such file"):
        expand([f"{tmp_path}/*.txt", f"{tmp_path}/nothing*"])


@pytest.mark.parametrize("count, shards", [(1, 1), (20, 3), (2, 5), (7, 7)])
def test_shards_hold_every_record_once(tmp_path, count, shards):
    lines = [sentence(i) for i in range(count)]
    (tmp_path / "a.txt").write_text("\n".join(lines))
    meta = build(
        tmp_path / "set", Kind.TEXTS, [tmp_path / "a.txt"], shards=shards, validation_share=0
    )
    assert meta["counts"] == {TRAIN: count}
    files = sorted(path.name for path in (tmp_path / "set").glob("*array_record*"))
    assert files == [f"texts-train.array_record-{i:05d}-of-{shards:05d}" for i in range(shards)]
    info = tfds.builder_from_directory(tmp_path / "set").info.splits[TRAIN]
    assert (
        sum(info.shard_lengths) == count and max(info.shard_lengths) - min(info.shard_lengths) <= 1
    )
    assert sorted(record["text"].decode() for record in records(tmp_path / "set")) == sorted(lines)
    assert len({record["id"] for record in records(tmp_path / "set")}) == count


def test_both_splits_may_have_several_shards(tmp_path):
    build_texts(tmp_path, "set", documents(40), validation_share=0.3, shards=3)
    assert len(list((tmp_path / "set").glob("*array_record*"))) == 6
    found = {
        split: {record["text"] for record in records(tmp_path / "set", split)}
        for split in (TRAIN, VALIDATION)
    }
    assert (
        found[TRAIN] | found[VALIDATION] == {line.encode() for line in documents(40)}
        and not found[TRAIN] & found[VALIDATION]
    )
