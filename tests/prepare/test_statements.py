"""Statements about two pictures: splits that both decide, and every fault with file and line."""

import pytest

from tests.make_data import encoded, picture
from tests.prepare.test_jsonl import GOOD, NOISE, fields, prepare, write
from vlbeit_jax.data.identity import PICTURES, SPLITS, TEXTS
from vlbeit_jax.data.source import open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.formats import jsonl
from vlbeit_jax.prepare.requests import prediction_lines
from vlbeit_jax.types import Kind

TWO = {"images": ["0.png", "0.png"], "text": "both fly", "truth": True}
FAULTS = {
    "one picture of two": (
        GOOD | {"truth": True},
        "one 'image', but two are needed here: 'images'",
    ),
    "no pictures": ({"text": "a", "truth": True}, "no 'images', which are needed"),
    "a list of one": ({"images": ["a.png"]}, "'images' has 1 entries, but two are needed"),
    "a list of three": ({"images": ["a"] * 3}, "'images' has 3 entries, but two"),
    "a path": ({"images": "a.png"}, "'images' is \"a.png\" and not a list"),
    "a lost one": (
        {"images": ["0.png", "lost.png"]},
        "'lost.png' cannot be read: No",
    ),
    "a broken second image": (
        TWO | {"images": ["0.png", "cut.jpg"]},
        "its second image is damaged",
    ),
    "a small first image": (
        TWO | {"images": ["dot.png", "0.png"]},
        "a side of its first image is shorter than --min_side=16",
    ),
    "no truth": ({"images": ["0.png"] * 2, "text": "a"}, "no 'truth'"),
    "a word": (TWO | {"truth": "true"}, "'truth' is \"true\" and not true or f"),
    "a number as truth": (TWO | {"truth": 1}, "'truth' is 1 and not true or f"),
    "no statement": ({"images": ["0.png"] * 2, "truth": False}, "no 'text'"),
}


@pytest.mark.parametrize(("row", "said"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_named_with_file_line_and_record(tmp_path, row, said):
    (tmp_path / "cut.jpg").write_bytes(NOISE[: len(NOISE) // 2])
    (tmp_path / "dot.png").write_bytes(encoded(picture(0, 1, 1)))
    (tmp_path / "0.png").write_bytes(encoded(picture(0)))
    with pytest.raises(UsageError, match=rf"mine.jsonl:3: record '.*'.*{said}"):
        prepare(tmp_path, Kind.STATEMENTS, [{"id": "first", **TWO}, "", {"id": "wrong", **row}])
    assert not (tmp_path / "set").exists()


def test_a_line_that_cannot_be_judged_is_named_and_the_others_are_done(tmp_path):
    (tmp_path / "0.png").write_bytes(encoded(picture(0)))
    (tmp_path / "cut.jpg").write_bytes(NOISE[: len(NOISE) // 2])
    asked = [
        {"id": "good", "images": ["0.png", "0.png"], "text": "both fly"},
        {"id": "one", "image": "0.png", "text": "both fly"},
        {"id": "damaged", "images": ["cut.jpg", "0.png"], "text": "both fly"},
        {"id": "silent", "images": ["0.png", "0.png"]},
    ]
    path = write(tmp_path, asked)

    def predict(records):
        assert [record.keys() for record in records] == [{"id", "image", "second_image", "text"}]
        return [{"truth": True}]

    lines = list(prediction_lines(jsonl.read_lines([path]), predict, {"images", "text"}))
    assert lines[0] == {"id": "good", "truth": True}
    said = ("one 'image', but two are needed", "its first image is damaged", "it has no 'text'")
    for number, (line, what) in enumerate(zip(lines[1:], said, strict=True), 2):
        assert f"mine.jsonl:{number}: " in line["error"] and what in line["error"]


def statement(key, first, second, **more):
    return {"id": key, "images": [f"{first}.png", f"{second}.png"], "text": "a", **more}


def test_two_pictures_decide_the_split_together(tmp_path):
    for number in range(60):
        (tmp_path / f"{number}.png").write_bytes(encoded(picture(number)))
    rows = [statement(f"{i}", 2 * i, 2 * i + 1, truth=bool(i % 2)) for i in range(20)]
    # The same two pictures in the other order, and the same statement.
    rows += [statement(f"again {i}", 2 * i + 1, 2 * i, truth=True) for i in range(20)]
    meta = prepare(tmp_path, Kind.STATEMENTS, rows, validation_share=0.5)
    assert min(meta["counts"].values()) > 5
    side = {key: split for split in SPLITS[:2] for key in fields(tmp_path, split)}
    found = {key: row for split in SPLITS[:2] for key, row in fields(tmp_path, split).items()}
    for i in range(20):
        one, other = found[f"{i}"], found[f"again {i}"]
        assert side[f"{i}"] == side[f"again {i}"] and one["group"] == other["group"]
        assert one["truth"] == bool(i % 2) and one["statement"] == other["statement"]
        assert one["image"] == other["second_image"] == encoded(picture(2 * i))
    opened = open_set(str(tmp_path / "set"))
    assert sum(opened.keys(PICTURES, split).shape[1] for split in SPLITS[:2]) == 40
    assert not any(opened.keys(TEXTS, split).size for split in SPLITS)
    # A statement belongs to the group that the file states.
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "0.png").write_bytes(encoded(picture(0)))
    (tmp_path / "more" / "1.png").write_bytes(encoded(picture(1)))
    rows = [statement(f"{i}", i, i, truth=True, group=f"g{i}") for i in range(2)]
    prepare(tmp_path / "more", Kind.STATEMENTS, rows, validation_share=0.0)
    names = [record["statement"] for record in fields(tmp_path / "more", "train").values()]
    assert len({*names}) == 2


def test_a_picture_of_two_pairs_must_not_be_in_two_splits(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(encoded(picture(number)))
    rows = [
        statement("a", 0, 1, truth=True, split="train"),
        statement("b", 2, 1, truth=True, split="test"),
    ]
    said = r"mine.jsonl:2: record 'b': its picture is also that of .*mine.jsonl:1, which is in spl"
    with pytest.raises(UsageError, match=said):
        prepare(tmp_path, Kind.STATEMENTS, rows)
    rows[1]["images"][1] = "2.png"  # The control.
    assert prepare(tmp_path, Kind.STATEMENTS, rows)["counts"] == {"test": 1, "train": 1}
