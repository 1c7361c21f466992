"""Masks: your own and ADE20K's; every fault with file, line and record."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.make_data import build, encoded, picture
from tests.prepare.test_jsonl import fields, prepare
from vlbeit_jax.data.masks import indexed_png, mask_bytes, read_mask, stored_mask
from vlbeit_jax.data.source import open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.check import Limits
from vlbeit_jax.prepare.formats.ade20k import without_zero
from vlbeit_jax.prepare.requests import prediction_lines
from vlbeit_jax.types import Kind

SHAPE = (20, 24)  # Of ``picture``.
MASK = np.random.default_rng(0).integers(0, 3, SHAPE).astype(np.uint8)


def png(pixels, mode=None):
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(buffer, "PNG")
    return buffer.getvalue()


FAULTS = {
    "no mask": (None, "it has no 'mask', which is needed here"),
    "a lost one": ("lost", "its mask 'lost.png' cannot be read: No such file"),
    "another size": (png(MASK.T), r"its mask has 24 x 20 pixels, but its image 20 x 24 \(height"),
    "a class too many": (
        png(np.where(MASK == 2, 7, MASK).astype(np.uint8)),
        r"its mask has \d+ pixels of class 7, but .*names.txt names 3 classes, 0 to 2; 255 is for",
    ),
    "colours": (png(picture(0)), "its mask has pixels of type RGB, but the number of a class"),
    "a JPEG": (encoded(picture(0), "JPEG", "L"), "its mask is a JPEG file, whose numbers are not"),
    "a text": (b"1 2 3", "its mask is not a readable image"),
}


@pytest.mark.parametrize(("mask", "said"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_named_with_file_line_and_record(tmp_path, mask, said):
    row = {"id": "wrong", "image": 1}
    if mask is not None:
        row["mask"] = "lost.png" if mask == "lost" else "mask.png"
        (tmp_path / "mask.png").write_bytes(mask if isinstance(mask, bytes) else b"")
    (tmp_path / "good.png").write_bytes(png(MASK))
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    rows = [{"id": "good", "image": 0, "mask": "good.png"}, row]
    with pytest.raises(UsageError, match=rf"mine.jsonl:2: record 'wrong': {said}"):
        prepare(tmp_path, Kind.MASKS, rows, classes=str(tmp_path / "names.txt"))
    assert not (tmp_path / "set").exists()


def test_indexed_and_grey_masks_are_stored_as_they_are(tmp_path):
    (tmp_path / "0_mask.png").write_bytes(indexed_png(MASK))
    (tmp_path / "1_mask.png").write_bytes(png(np.where(MASK == 1, 255, MASK).astype(np.uint8)))
    rows = [{"id": str(i), "image": i, "mask": f"{i}_mask.png", "split": "train"} for i in (0, 1)]
    meta = prepare(tmp_path, Kind.MASKS, rows)
    # Without names, classes are called by their numbers.
    assert meta["classes"] == ["0", "1", "2"]
    counted = [int((MASK == each).sum()) for each in range(3)]
    wanted = {"0": 2 * counted[0], "1": counted[1], "2": 2 * counted[2]}
    assert meta["class_counts"] == {"train": wanted}
    records = open_set(str(tmp_path / "set")).records("train")
    found = {
        each["id"].decode(): stored_mask(each["mask"])
        for each in map(records.__getitem__, range(2))
    }
    np.testing.assert_array_equal(found["0"], MASK)
    np.testing.assert_array_equal(found["1"], np.where(MASK == 1, 255, MASK))
    assert fields(tmp_path, "train").keys() == {"0", "1"}
    with pytest.raises(UsageError, match="--short_side=8 is not for masks"):
        prepare(tmp_path, Kind.MASKS, rows, limits=Limits(short_side=8))


def test_a_mask_of_one_class_needs_names(tmp_path):
    (tmp_path / "m.png").write_bytes(png(np.zeros(SHAPE, np.uint8)))
    with pytest.raises(UsageError, match="the masks have 1 classes, but at least two are needed"):
        prepare(tmp_path, Kind.MASKS, [{"image": 0, "mask": "m.png"}])


def test_palettes_keep_the_numbers():
    every = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(read_mask(indexed_png(every)), every)
    np.testing.assert_array_equal(stored_mask(mask_bytes(every)), every)


def test_zero_does_not_count_and_classes_begin_at_zero():
    """In this order: 0 becomes 255, all others one less, 255 stays."""
    found = without_zero(np.array([[0, 1, 2, 150, 255]], np.uint8))
    np.testing.assert_array_equal(found, [[255, 0, 1, 149, 255]])


def ade20k(folder, names=True):
    for split, count in (("validation", 2), ("training", 3)):
        for kind in ("images", "annotations"):
            (folder / kind / split).mkdir(parents=True)
        for number in range(count):
            name = f"ADE_{'val' if split == 'validation' else 'train'}_{number:08d}"
            pixels = picture(number + 10 * count)
            (folder / "images" / split / f"{name}.jpg").write_bytes(encoded(pixels, "JPEG"))
            (folder / "annotations" / split / f"{name}.png").write_bytes(png(MASK))
    if names:
        rows = ["Idx\tRatio\tTrain\tVal\tStuff\tName"]
        rows += [f"{i}\t0.1\t10\t1\t1\tthing {i}, of a kind" for i in range(1, 151)]
        (folder / "objectInfo150.txt").write_text("\n".join(rows) + "\n")
    return folder


def test_ade20k_is_read_as_it_is_published(tmp_path):
    source = ade20k(tmp_path / "ADEChallengeData2016")
    meta = build(tmp_path / "set", Kind.MASKS, [source], source_format="ade20k")
    assert meta["counts"] == {"train": 3, "validation": 2}
    assert len(meta["classes"]) == 150 and meta["classes"][0] == "thing 1, of a kind"
    found = open_set(str(tmp_path / "set")).records("validation")[1]
    assert found["id"] == b"ADE_val_00000001"
    assert found["source"] == b"images/validation/ADE_val_00000001.jpg"
    wanted = np.where(MASK == 0, 255, MASK - 1)
    np.testing.assert_array_equal(stored_mask(found["mask"]), wanted)
    again = build(tmp_path / "part", Kind.MASKS, [source], source_format="ade20k", splits=["train"])
    assert again["counts"] == {"train": 3}
    (source / "objectInfo150.txt").unlink()
    plain = build(tmp_path / "plain", Kind.MASKS, [source], source_format="ade20k")
    assert plain["classes"] == [str(i) for i in range(150)]


LAST = "annotations/training/ADE_train_00000002.png"
WRONG = {
    "a folder": (
        lambda f: (f / "annotations").rename(f / "x"),
        "no annotations/validation/ here, w",
    ),
    "no pictures": (
        lambda f: [path.unlink() for path in (f / "images/training").iterdir()],
        "images/training: there is no .jpg file in it",
    ),
    "an annotation": (
        lambda f: (f / LAST).unlink(),
        f"{LAST}: record 'ADE_train_00000002': its annotation {LAST} cannot be read: No such",
    ),
    "another size": (
        lambda f: (f / LAST).write_bytes(png(MASK.T)),
        f"{LAST}: record 'ADE_train_00000002': its mask has 24 x 20 pixels, but",
    ),
    "a class too many": (
        lambda f: (f / LAST).write_bytes(png(np.full(SHAPE, 151, np.uint8))),
        r"480 pixels of class 150, but .*objectInfo150.txt names 150 classes, 0 to 149",
    ),
    "other names": (
        lambda f: (f / "objectInfo150.txt").write_text("1\twall\n"),
        "objectInfo150.txt: it names 1 classes, not 150",
    ),
}


@pytest.mark.parametrize(("damage", "said"), WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_with_ade20k_is_named(tmp_path, damage, said):
    source = ade20k(tmp_path / "ade")
    damage(source)
    with pytest.raises(UsageError, match=said):
        build(tmp_path / "set", Kind.MASKS, [source], source_format="ade20k")
    assert not (tmp_path / "set").exists()


def test_a_line_without_a_picture_is_named_and_the_others_are_done():
    from vlbeit_jax.prepare.item import Item

    items = [Item("a", encoded(picture(0))), Item("b", place="new.jsonl:2")]
    found = list(prediction_lines(items, lambda rows: [{"mask": 1} for _ in rows], {"image"}))
    assert found[0] == {"id": "a", "mask": 1}
    assert found[1]["error"].startswith("new.jsonl:2: it has no 'image'")
