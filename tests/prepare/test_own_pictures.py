"""Folders of pictures, and small sets: enough is held out, and wrong inputs are named."""

import json

import pytest

from tests.make_data import build
from tests.test_own import write_pictures
from vlbeit_jax.data.source import TRAIN, VALIDATION, open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.held_out import with_larger_share
from vlbeit_jax.types import Kind


def built(folder, kind=Kind.PAIRS, name="pairs", **options):
    """Prepares the pictures of a folder; returns the description."""
    options = {"max_dropped": 0} | options
    return build(folder / name, kind, [folder / "pictures"], source_format="folder", **options)


def test_few_pictures_have_some_held_out(tmp_path):
    """Five sets of about ten; the control holds out too few of at least one of them."""
    given = []
    for count in range(10, 15):
        folder = tmp_path / str(count)
        write_pictures(folder / "pictures", count)
        given.append(built(folder, name="control")["counts"].get(VALIDATION, 0))
        meta = with_larger_share(
            lambda share, fewest, folder=folder: built(
                folder, validation_share=share, fewest=fewest
            ),
            0.1,
        )
        share, held = meta["options"]["validation_share"], meta["counts"].get(VALIDATION, 0)
        assert (share == 0.1) == (given[-1] >= 2) and (held >= 2 or share == 0.5)
        assert sum(meta["counts"].values()) == count
    assert min(given) < 2
    assert built(folder, name="none", validation_share=0)["counts"] == {TRAIN: count}


def test_captions_that_repeat_cost_no_training_data(tmp_path):
    """Held-out pairs are left out, because training has their captions; another share has too."""
    write_pictures(tmp_path / "pictures", 40)
    for path in (tmp_path / "pictures").rglob("*.txt"):
        path.write_text("a picture")
    meta = with_larger_share(
        lambda share, fewest: built(tmp_path, validation_share=share, fewest=fewest), 0.2
    )
    assert meta["options"]["validation_share"] == 0.2
    assert meta["counts"].keys() == {TRAIN} and meta["counts"][TRAIN] > 20
    assert meta["left_out"] == {"caption_in_training": 40 - meta["counts"][TRAIN]}


@pytest.mark.parametrize("stated", [True, False])
def test_splits_that_the_source_states_are_not_changed(tmp_path, stated):
    """The control is a hash that holds out nothing at first, and is asked again."""
    rows = [
        {"text": f"text {number}"} | ({"split": TRAIN} if stated else {}) for number in range(30)
    ]
    (tmp_path / "texts.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    shares = []

    def split(share, fewest):
        shares.append(share)
        options = {"max_dropped": 0, "validation_share": share, "fewest": fewest}
        given = [tmp_path / "texts.jsonl"]
        return build(tmp_path / "set", Kind.TEXTS, given, source_format="jsonl", **options)

    counts = with_larger_share(split, 0.001)["counts"]
    assert (len(shares) == 1) == stated and (counts.get(VALIDATION, 0) >= 2) != stated


@pytest.mark.parametrize(
    "place, source_format, said",
    [
        ("empty", "folder", "there is no picture in this folder or below it"),
        ("nowhere", "folder", "no such file or folder"),
        ("file.txt", "folder", "is no folder; this format reads folders"),
        (
            "empty",
            "jsonl",
            "is a folder; name its files, or read its pictures with --format",
        ),
    ],
)
def test_a_wrong_input_says_what_to_do(tmp_path, place, source_format, said):
    (tmp_path / "empty" / ".hidden").mkdir(parents=True)
    write_pictures(tmp_path / "empty" / ".hidden" / "pictures", 1)
    (tmp_path / "file.txt").write_text("a")
    inputs = [tmp_path / place]
    with pytest.raises(UsageError, match=said):
        build(tmp_path / "out", Kind.IMAGES, inputs, source_format=source_format)


def test_pictures_without_captions_are_images_and_no_pairs(tmp_path):
    write_pictures(tmp_path / "pictures", 4)
    (tmp_path / "pictures" / "000.txt").unlink()
    images = built(tmp_path, Kind.IMAGES, "images")
    pairs = built(tmp_path, max_dropped=1)
    assert [sum(each["counts"].values()) for each in (images, pairs)] == [4, 3]
    assert pairs["dropped"] == {"no_caption": 1}
    found = open_set(str(tmp_path / "images"))
    ids = {
        record["id"].decode()
        for split in images["counts"]
        for record in map(found.records(split).__getitem__, range(found.count(split)))
    }
    below = ["pictures/below/001.png", "pictures/below/003.png"]
    assert ids == {"pictures/000.png", "pictures/002.png", *below}
