"""Annotated data: one schema, splits and classes as stated, and every fault with file and line."""

import json

import numpy as np
import pytest

from tests.make_data import build, encoded, picture, records
from vlbeit_jax.data.identity import PICTURES, SPLITS, TEXTS
from vlbeit_jax.data.source import open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.types import Kind

ALL = {
    "label": "bird",
    "text": "what flies?",
    "captions": ["a bird", "it flies"],
    "answers": ["a bird", "bird"],
}
NOISE = encoded(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), "JPEG")


def write(folder, rows, name="mine.jsonl"):
    """A JSONL file; ``image`` is the number of a picture, which is written beside it."""
    lines = []
    for row in rows:
        if isinstance(row, dict) and isinstance(row.get("image"), int):
            number = row["image"]
            (folder / f"{number}.png").write_bytes(encoded(picture(number)))
            row = row | {"image": f"{number}.png"}
        lines.append(row if isinstance(row, str) else json.dumps(row))
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def prepare(folder, kind, rows, **changed):
    path = write(folder, rows)
    return build(folder / "set", kind, [path], source_format="jsonl", **changed)


def fields(folder, *splits):
    return {record["id"].decode(): record for record in records(folder / "set", *splits)}


def test_one_file_serves_every_kind(tmp_path):
    path = write(tmp_path, [{"id": str(i), "image": i, **ALL} for i in range(3)])
    for kind, names in {
        Kind.PAIRS: {"captions"},
        Kind.QUESTIONS: {"text", "answers", "group"},
        Kind.TEXTS: {"text"},
    }.items():
        build(tmp_path / kind, kind, [path], source_format="jsonl")
        for record in records(tmp_path / kind):
            picture_too = set() if kind is Kind.TEXTS else {"image", "sha256"}
            assert record.keys() == {"id", "source"} | picture_too | names
    assert [text.decode() for text in record_of(tmp_path / Kind.PAIRS, "captions")] == [
        "a bird",
        "it flies",
    ]
    assert [each.decode() for each in record_of(tmp_path / Kind.QUESTIONS, "answers")] == [
        "a bird",
        "bird",
    ]


def record_of(folder, name):
    return records(folder)[0][name]


def test_splits_groups_and_labels_are_kept_as_stated(tmp_path):
    rows = [
        {"id": f"{label}{split}", "image": number, "label": label, "split": split, "group": split}
        for number, (label, split) in enumerate((a, b) for a in ("dog", "cat") for b in SPLITS)
    ]
    meta = prepare(tmp_path, Kind.LABELLED_IMAGES, rows, validation_share=1.0)
    assert meta["counts"] == dict.fromkeys(sorted(SPLITS), 2)
    assert meta["classes"] == ["cat", "dog"]
    assert meta["class_counts"] == {split: {"cat": 1, "dog": 1} for split in SPLITS}
    for row in rows:
        record = fields(tmp_path, row["split"])[row["id"]]
        assert record["label"].decode() == row["label"]
        assert record["group"].decode() == row["split"]
        assert record["source"].decode() == f"{row['image']}.png"
        assert record["image"] == encoded(picture(row["image"]))
    opened = open_set(str(tmp_path / "set"))
    assert [opened.keys(PICTURES, split).shape[1] for split in SPLITS] == [2, 2, 2]


def test_without_a_split_groups_stay_together_and_pictures_decide(tmp_path):
    rows = [
        {"id": f"{i}", "image": i, "label": "ab"[i % 2], "group": f"g{i // 4}"} for i in range(80)
    ]
    rows += [{"id": f"lone {i}", "image": i, "label": "a"} for i in range(80, 100)]
    prepare(tmp_path, Kind.LABELLED_IMAGES, rows, validation_share=0.5)
    side = {key: split for split in SPLITS[:2] for key in fields(tmp_path, split)}
    assert set(side.values()) == {*SPLITS[:2]}
    assert all(len({side[f"{4 * g + i}"] for i in range(4)}) == 1 for g in range(20))
    # The same picture as plain image is on the same side.
    path = write(tmp_path, [{"id": key, "image": int(key[5:])} for key in side if "lone" in key])
    build(tmp_path / "plain", Kind.IMAGES, [path], source_format="jsonl", validation_share=0.5)
    for split in SPLITS[:2]:
        for record in records(tmp_path / "plain", split):
            assert side[record["id"].decode()] == split


def test_numbers_are_names_of_a_file_in_its_order(tmp_path):
    (tmp_path / "names.txt").write_text("zebra\napple\nnever seen\n")
    rows = [{"id": "a", "text": "one", "label": 0}, {"id": "b", "text": "two", "label": "apple"}]
    meta = prepare(tmp_path, Kind.LABELLED_TEXTS, rows, classes=str(tmp_path / "names.txt"))
    assert meta["classes"] == ["zebra", "apple", "never seen"]
    found = fields(tmp_path)
    assert found["a"]["label"] == b"zebra" and found["b"]["label"] == b"apple"
    assert found["a"]["text"] == b"one" and len(found["a"]["group"]) == 16
    (tmp_path / "again").mkdir()
    (tmp_path / "names.json").write_text('["zebra", "apple", "never seen"]')
    again = prepare(
        tmp_path / "again", Kind.LABELLED_TEXTS, rows, classes=str(tmp_path / "names.json")
    )
    assert again["fingerprint"] == meta["fingerprint"] and again["classes"] == meta["classes"]


GOOD = {"id": "good", "image": 0, **ALL}
FAULTS = {
    "not JSON": (Kind.PAIRS, "{", "this line is not JSON"),
    "a list": (Kind.PAIRS, "[1]", "holds a list and not an object"),
    "a misspelt key": (Kind.PAIRS, {"imge": "x.png"}, "'imge'; did you mean 'image'?"),
    "an unknown key": (Kind.PAIRS, {"zzz": 1}, "'zzz'; the keys are id, image, images, text"),
    "a key twice": (Kind.PAIRS, '{"text": "a", "text": "b"}', "has the key 'text' twice"),
    "no image": (Kind.LABELLED_IMAGES, {"label": "a"}, "no 'image'"),
    "a missing image": (Kind.PAIRS, GOOD | {"image": "lost.png"}, "'lost.png' cannot be read: No"),
    "a folder": (Kind.PAIRS, GOOD | {"image": "."}, "cannot be read"),
    "outside": (Kind.PAIRS, GOOD | {"image": "../a.png"}, "is outside the folder"),
    "absolute": (Kind.PAIRS, GOOD | {"image": "/etc/hostname"}, "is outside the folder"),
    "a broken image": (Kind.LABELLED_IMAGES, GOOD | {"image": "cut.jpg"}, "image is damaged"),
    "no picture": (Kind.LABELLED_IMAGES, GOOD | {"image": "page.png"}, "not a file of a known"),
    "a small image": (Kind.LABELLED_IMAGES, GOOD | {"image": "dot.png"}, "--min_side=16"),
    "no label": (Kind.LABELLED_IMAGES, {"image": 1, "text": "a"}, "no 'label'"),
    "an empty label": (Kind.LABELLED_IMAGES, GOOD | {"label": ""}, "its 'label' is empty"),
    "a blank label": (Kind.LABELLED_IMAGES, GOOD | {"label": " "}, "its 'label' is blank: ' '"),
    "a blank caption": (Kind.PAIRS, GOOD | {"captions": ["a", "  "]}, "'captions' is blank: '  '"),
    "a list as label": (Kind.LABELLED_IMAGES, GOOD | {"label": ["a"]}, "not the name of a class"),
    "a number": (Kind.LABELLED_IMAGES, {"image": 1, "label": 7}, "7 is a number; give --classes"),
    "no text": (Kind.LABELLED_TEXTS, {"label": "a"}, "no 'text'"),
    "no captions": (Kind.PAIRS, {"image": 1}, "no 'captions'"),
    "a caption without words": (Kind.PAIRS, GOOD | {"captions": ["a", " ?!"]}, "no word: ' [?]!'"),
    "an empty list": (Kind.PAIRS, GOOD | {"captions": []}, r"'captions' is \[\] and not a list"),
    "a string": (Kind.PAIRS, GOOD | {"captions": "a"}, "'captions' is \"a\" and not a list"),
    "no answers": (Kind.QUESTIONS, {"image": 1, "text": "a"}, "no 'answers'"),
    "a number as answer": (Kind.QUESTIONS, GOOD | {"answers": [3]}, "'answers' is 3 and not a st"),
    "many answers": (Kind.QUESTIONS, GOOD | {"answers": ["a"] * 11}, "11 entries, more than 10"),
    "a split": (Kind.PAIRS, GOOD | {"split": "dev"}, '"dev" and not one of train, validation'),
    "an id": (Kind.PAIRS, GOOD | {"id": 3}, "its 'id' is 3 and not a string"),
}


@pytest.mark.parametrize(("kind", "row", "said"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_named_with_file_line_and_record(tmp_path, kind, row, said):
    (tmp_path / "cut.jpg").write_bytes(NOISE[: len(NOISE) // 2])
    (tmp_path / "page.png").write_bytes(b"<html>404</html>")
    (tmp_path / "dot.png").write_bytes(encoded(picture(0, 1, 1)))
    good = GOOD | {"id": "the first", "label": "a"}
    if isinstance(row, dict) and row.get("id") == "good":
        row = row | {"id": "wrong"}
    with pytest.raises(UsageError, match=rf"mine.jsonl:3: record '.*'.*{said}"):
        prepare(tmp_path, kind, [good, "", row])
    assert not (tmp_path / "set").exists()


def test_all_faults_are_named_up_to_twenty(tmp_path):
    rows = [{"id": f"r{i}", "image": i} for i in range(3)]
    with pytest.raises(UsageError) as caught:
        prepare(tmp_path, Kind.LABELLED_IMAGES, rows)
    assert all(f"mine.jsonl:{i + 1}: record 'r{i}'" in str(caught.value) for i in range(3))
    with pytest.raises(UsageError, match="only the first are listed") as caught:
        prepare(tmp_path, Kind.LABELLED_TEXTS, [{"id": f"r{i}"} for i in range(50)])
    assert str(caught.value).count("record 'r") == 20


def labelled(key, number, **more):
    return {"id": key, "image": number, "label": "ab"[number % 2], **more}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([labelled("a", 1), labelled("a", 2)], "id 'a' is also that of .*mine.jsonl:1"),
        (
            [labelled("a", 1, split="train"), labelled("b", 1, split="test")],
            "its picture is also that of .*mine.jsonl:1, which is in split train, .* split test",
        ),
        (
            [labelled("a", 1, split="train", group="g"), labelled("b", 2, split="test", group="g")],
            "its group is also that of .*mine.jsonl:1",
        ),
        ([labelled("a", 1, group=f"{i}", id=f"{i}") for i in range(20)], "its picture is also"),
    ],
    ids=["one id twice", "one picture in two splits", "one group", "one picture in two groups"],
)
def test_records_contradict_each_other(tmp_path, rows, said):
    with pytest.raises(UsageError, match=rf"mine.jsonl:\d+: record '.*': .*{said}"):
        prepare(tmp_path, Kind.LABELLED_IMAGES, rows, validation_share=0.5)
    if len(rows) == 2:  # Control: nothing else is wrong with them.
        apart = [rows[0], labelled("c", 2, split=rows[1].get("split", ""))]
        apart = [{k: v for k, v in row.items() if v} for row in apart]
        prepare(tmp_path, Kind.LABELLED_IMAGES, apart, validation_share=0.5)


def test_a_question_may_be_asked_in_two_splits_but_a_text_may_not(tmp_path):
    same = {"text": "what is it?", "answers": ["a cat"]}
    splits = [{"image": i, "split": split, **same} for i, split in enumerate(SPLITS)]
    prepare(tmp_path, Kind.QUESTIONS, splits)
    assert not open_set(str(tmp_path / "set")).keys(TEXTS, "train").size
    texts = [{"text": "What is it?", "label": "a", "split": split} for split in SPLITS]
    texts[1]["text"] = " what is IT?"
    with pytest.raises(UsageError, match="its text is also that of .*:1, which is in split train"):
        (tmp_path / "again").mkdir()
        prepare(tmp_path / "again", Kind.LABELLED_TEXTS, texts)


@pytest.mark.parametrize(
    ("text", "label", "said"),
    [
        ("a\nb\n", "c", "'c' is not among the classes of .*names.txt"),
        ("a\nb\n", 2, "label 2 is out of range: .*names.txt names 2 classes, 0 to 1"),
        ("a\nb\n", -1, "label -1 is out of range"),
        ("a\nb\na\n", "a", "'a' is there twice"),
        ("a\n", "a", "holds 1 names"),
        ("[1, 2]", "a", "a name of a class is not a string"),
    ],
)
def test_labels_must_be_among_the_classes(tmp_path, text, label, said):
    (tmp_path / "names.txt").write_text(text)
    rows = [{"text": "first", "label": "a"}, {"text": "second", "label": label}]
    with pytest.raises(UsageError, match=said):
        prepare(tmp_path, Kind.LABELLED_TEXTS, rows, classes=str(tmp_path / "names.txt"))


def test_one_class_alone_is_no_task_and_classes_are_for_labels(tmp_path):
    with pytest.raises(UsageError, match="all records are of the class 'a'"):
        prepare(tmp_path, Kind.LABELLED_TEXTS, [{"text": "first", "label": "a"}])
    with pytest.raises(UsageError, match="is for labelled data and masks, but --kind=texts"):
        prepare(tmp_path, Kind.TEXTS, [{"text": "first"}], classes="names.txt")
    with pytest.raises(UsageError, match="the input held none"):
        prepare(tmp_path, Kind.LABELLED_TEXTS, [""])


def test_captions_of_pairs_are_apart_in_all_splits(tmp_path):
    rows = [
        {"id": split, "image": i, "split": split, "captions": ["shared words", f"own {split}"]}
        for i, split in enumerate(SPLITS)
    ]
    prepare(tmp_path, Kind.PAIRS, rows)
    found = fields(tmp_path, *SPLITS)
    assert [len(found[split]["captions"]) for split in SPLITS] == [2, 1, 1]
