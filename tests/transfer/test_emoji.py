"""The emoji in the package: what they are, how they are grouped, and that no fold leaks."""

import collections
import io
import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tools.emoji import build
from tools.emoji.folds import FOLDS, fold_of, split_of
from tools.emoji.groups import group_names, name_key, near_pairs
from vlbeit_jax.data.content import fingerprint_of
from vlbeit_jax.data.identity import PICTURES, SPLITS, TEST, VALIDATION
from vlbeit_jax.data.image import decode
from vlbeit_jax.data.source import SAMPLE_FOLDER, open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.types import Kind


@pytest.fixture(scope="module")
def emoji():
    return open_set("sample:emoji", Kind.LABELLED_IMAGES)


@pytest.fixture(scope="module")
def records(emoji):
    found = {split: emoji.records(split) for split in SPLITS}
    return {split: [each[i] for i in range(len(each))] for split, each in found.items()}


def texts(records, field):
    return [each[field].decode() for split in SPLITS for each in records[split]]


def test_counts_and_content_are_as_stated(emoji, records):
    assert emoji.meta["counts"] == {"test": 467, "train": 1019, "validation": 150}
    assert emoji.meta["left_out"] == {"flags": 270}
    labels = collections.Counter(texts(records, "label"))
    assert list(labels) and sorted(labels) == emoji.meta["classes"] and len(labels) == 8
    assert labels.total() == 1636 and labels["People & Body"] == 386
    assert emoji.meta["groups"] == len(set(texts(records, "group"))) == 1241
    assert len(set(texts(records, "id"))) == 1636
    for split in SPLITS:
        counts = collections.Counter(each["label"].decode() for each in records[split])
        assert emoji.meta["class_counts"][split] == dict(sorted(counts.items()))
    assert fingerprint_of(emoji.kind, records) == emoji.fingerprint


def test_tfds_opens_it_without_us():
    builder = tfds.builder_from_directory(str(SAMPLE_FOLDER / "emoji"))
    record = builder.as_data_source("test")[0]
    assert record["image"].shape == (64, 64, 3)


def test_all_notices_are_there(emoji):
    notices = (emoji.folder / "LICENSE").read_text()
    for text in (
        "Noto emoji",
        "Apache License",
        "END OF TERMS AND CONDITIONS",
        "UNICODE LICENSE V3",
        "Copyright (c) 2013 Cal Henderson",
        "Copyright (c) 2017-2019 Miles Johnson",
        "put each one on white",  # Apache-2.0, section 4(b): what was changed.
    ):
        assert text in notices, text
    assert "Apache-2.0" in emoji.meta["licence"] and "Unicode-3.0" in emoji.meta["licence"]


def test_no_group_is_in_two_splits_of_a_fold(records):
    groups = [
        set(texts({**dict.fromkeys(SPLITS, []), split: records[split]}, "group"))
        for split in SPLITS
    ]
    assert not any(groups[a] & groups[b] for a, b in ((0, 1), (0, 2), (1, 2)))
    everything = texts(records, "group")
    for split in SPLITS:  # The set's own splits are those of the first fold.
        assert all(split_of(each["group"].decode(), build.FOLD) == split for each in records[split])
    tested = collections.Counter(
        group for fold in range(FOLDS) for group in set(everything) if split_of(group, fold) == TEST
    )
    assert set(tested.values()) == {1} and set(tested) == set(everything)  # Each once.
    sizes = collections.Counter(map(fold_of, everything))
    assert dict(sizes) == {0: 467, 1: 625, 2: 544}
    for fold in range(FOLDS):
        splits = collections.Counter(split_of(group, fold) for group in everything)
        assert splits[VALIDATION] > 120


def test_equal_pictures_are_of_one_group(emoji, records):
    """Also nearly equal ones: the groups are found again from what is stored."""
    images = np.stack([decode(each["image"]) for split in SPLITS for each in records[split]])
    groups = np.array(texts(records, "group"))
    near = near_pairs(images)
    assert near.sum() > len(near) + 100  # There are such pairs.
    assert all(groups[one] == groups[other] for one, other in np.argwhere(near))
    assert sum(emoji.keys(PICTURES, split).shape[1] for split in SPLITS) > 1600


def test_masks_and_names(records):
    """On black instead of white, a picture is what its mask lets through."""
    for each in records[VALIDATION][:20]:
        alpha = decode(each["alpha"]).astype(int)
        assert alpha.shape == (64, 64, 3) and alpha.min() == 0 and alpha.max() == 255
        assert (decode(each["image"])[alpha == 0] == 255).all()  # White where it is transparent.
        names = [name.decode() for name in each["names"]]
        assert names and len({name.casefold() for name in names}) == len(names)
    several = [len(each["names"]) >= 3 for split in SPLITS for each in records[split]]
    assert sum(several) > 300  # Several captions a picture, as COCO has.


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("man running: facing right", "running"),
        ("woman: red hair", "person"),
        ("person: bald", "person"),
        ("family: man, woman, boy", "family"),
        ("couple with heart: man, man", "heart"),
        ("one-thirty", "clock"),
        ("up-right arrow", "arrow"),
        ("black medium-small square", "square"),
        ("orange", "orange"),
        ("keycap: #", "keycap"),
        ("left-facing fist", "fist"),
    ],
)
def test_what_is_left_of_a_name(name, key):
    assert name_key(name) == key


def test_groups_join_by_name_and_by_picture():
    """A chain: the first is like the second by name, the second like the third by picture."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (4, 32, 32, 3), np.uint8)
    pictures[2] = pictures[1] ^ 1
    names = ["woman cook", "man cook", "pan", "pot"]
    assert group_names(names, pictures) == ["cook", "cook", "cook", "pot"]
    pictures[2] = rng.integers(0, 256, (32, 32, 3), np.uint8)  # The control.
    assert group_names(names, pictures) == ["cook", "cook", "pan", "pot"]


def test_near_is_as_stated_slowly():
    rng = np.random.default_rng(1)
    base = rng.integers(0, 256, (1, 32, 32, 3)).astype(float)
    pictures = np.clip(
        base + rng.normal(size=(12, 32, 32, 3)) * np.arange(12)[:, None, None, None] * 8, 0, 255
    )
    pictures = pictures.astype(np.uint8)
    small = pictures.reshape(12, 16, 2, 16, 2, 3).mean((2, 4)) / 255
    slow = [[np.sqrt(((one - two) ** 2).mean()) < 0.06 for two in small] for one in small]
    found = near_pairs(pictures)
    assert found.tolist() == slow and 12 < found.sum() < 144


def test_another_archive_is_refused(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        build.Archive(tmp_path, *build.PICTURES)
    (tmp_path / build.PICTURES[0]).write_bytes(b"another")
    with pytest.raises(UsageError, match="SHA-256"):
        build.Archive(tmp_path, *build.PICTURES)


def test_an_archive_is_read(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("package/en/data.json")
        member.size = 2
        archive.addfile(member, io.BytesIO(b"{}"))
    (tmp_path / "a.tgz").write_bytes(buffer.getvalue())
    digest = build.picture_digest(buffer.getvalue())
    assert build.Archive(tmp_path, "a.tgz", digest).read("en/data.json") == b"{}"


def test_names_that_differ_in_case_alone_are_one():
    assert build._different(["Dog face", "dog  FACE", "dog"]) == ["Dog face", "dog"]
