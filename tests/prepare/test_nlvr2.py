"""NLVR2's published files: a miniature of their layout becomes a set of statements."""

import json

import pytest

from tests.make_data import build, encoded, picture, records
from vlbeit_jax.data.source import open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.formats import nlvr2
from vlbeit_jax.prepare.formats.base import Options
from vlbeit_jax.types import Kind

DATA = "nlvr/nlvr2/data"


def line(split, identifier, label, sentence, **more):
    """A line as published, with fields that are not read."""
    return {
        "validation": {"46": label},
        "sentence": sentence,
        "left_url": "https://example.org/left.jpg",
        "identifier": f"{split}-{identifier}",
        "label": label,
        "writer": 1,
        "synset": "bird",
        "query": "two birds0",
        **more,
    }


TRAIN = [
    line("train", "10-0-0", "True", "Both show birds.", directory=7),
    line("train", "10-1-0", "False", "Both show birds.", directory=7),
    line("train", "10-1-1", "True", "A dog sleeps. ", directory=7),
    line("train", "11-0-0", "False", "Both show birds.", directory=42),
]
DEV = [line("dev", "1-0-0", "True", "A boat."), line("dev", "1-3-0", "False", "A boat.")]
TEST = [line("test1", "2-0-0", "False", "A cat."), line("test1", "2-0-1", "True", "No cat.")]
LINES = {"train": TRAIN, "dev": DEV, "test1": TEST}


def write(folder, lines=LINES, data=DATA):
    """The layout of BEiT-3's guide; each picture is another one."""
    (folder / data).mkdir(parents=True)
    for split, rows in lines.items():
        text = "".join(json.dumps(row) + "\n" if isinstance(row, dict) else row for row in rows)
        (folder / data / f"{split}.json").write_text(text)
        for row in rows:
            if not isinstance(row, dict):
                continue
            below = f"images/train/{row['directory']}" if split == "train" else split
            (folder / below).mkdir(parents=True, exist_ok=True)
            pair = row["identifier"].rpartition("-")[0]
            for which in (0, 1):
                seed = sum(map(ord, pair)) * 10 + int(pair.split("-")[2]) * 100000 + which
                # Their names end with .png, whatever the files are.
                (folder / below / f"{pair}-img{which}.png").write_bytes(
                    encoded(picture(seed), "JPEG" if which else "PNG")
                )
    return folder


def prepare(folder):
    return build(folder / "set", Kind.STATEMENTS, [folder / "nlvr2"], source_format="nlvr2")


@pytest.mark.parametrize("data", [DATA, "."])
def test_a_miniature_becomes_a_set_with_its_own_splits_and_groups(tmp_path, data):
    write(tmp_path / "nlvr2", data=data)
    meta = prepare(tmp_path)
    assert meta["counts"] == {"test": 2, "train": 4, "validation": 2} and not meta["dropped"]
    assert nlvr2.plan([tmp_path / "nlvr2"], Options()).items == 8
    found = {each["id"].decode(): each for each in records(tmp_path / "set", "train")}
    assert list(found) == [row["identifier"] for row in TRAIN]
    row = found["train-10-1-1"]
    assert row["truth"] and not found["train-10-1-0"]["truth"]
    assert row["text"] == b"A dog sleeps." and row["group"] == b"train-10"
    assert row["source"] == b"images/train/7/train-10-1-img0.png"
    folder = tmp_path / "nlvr2/images/train/7"
    assert row["image"] == (folder / "train-10-1-img0.png").read_bytes()
    assert row["second_image"] == (folder / "train-10-1-img1.png").read_bytes()
    # A sentence is one statement within its set; the same words of another set are another one.
    same = [found[f"train-{each}-0"]["statement"] for each in ("10-0", "10-1", "11-0")]
    assert same[0] == same[1] != same[2]
    assert open_set(str(tmp_path / "set")).keys("pictures", "train").shape[1] == 6


def test_pictures_of_an_earlier_split_leave_dev_and_train_and_are_counted(tmp_path):
    folder = write(tmp_path / "nlvr2")
    shared = (folder / "test1/test1-2-0-img1.png").read_bytes()
    (folder / "dev/dev-1-3-img0.png").write_bytes(shared)
    (folder / "images/train/42/train-11-0-img0.png").write_bytes(shared)
    meta = prepare(tmp_path)
    assert meta["counts"] == {"test": 2, "train": 3, "validation": 1}
    assert meta["left_out"] == {"picture_in_test": 2} and not meta["dropped"]
    assert [each["id"] for each in records(tmp_path / "set", "validation")] == [b"dev-1-0-0"]


FAULTS = {
    "not JSON": ("{", "this line is not JSON"),
    "no sentence": ({"label": "True", "identifier": "dev-1-0-0"}, "it has no 'sentence'"),
    "a number": (line("dev", "1-0-0", "True", 3), "its 'sentence' is 3 and not a string"),
    "a label": (line("dev", "1-0-0", "yes", "A cat."), "is 'yes' and neither 'True' nor 'False'"),
    "another split": (line("train", "1-0-0", "True", "A cat."), "is not dev-SET-PAIR-SENTENCE"),
    "a short one": (line("dev", "1-0", "True", "A cat."), "is not dev-SET-PAIR-SENTENCE"),
    "a lost picture": (line("dev", "9-0-0", "True", "A cat."), "dev/dev-9-0-img0.png is missing"),
    "one twice": (DEV[0], "its identifier is also that of .*dev.json:1"),
    "another encoding": ("\xff", "this line is not JSON"),
    "a folder": (
        line("dev", "1-0-0", "True", "A cat.", directory="../7"),
        "'directory' is '../7' and not a number",
    ),
}


@pytest.mark.parametrize(("row", "said"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_named_with_file_and_line(tmp_path, row, said):
    folder = write(tmp_path / "nlvr2")
    file = folder / DATA / "dev.json"
    wrong = row if isinstance(row, str) else json.dumps(row)
    text = f"{file.read_text().splitlines()[0]}\n{wrong}\n"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match=f"dev.json:2: record '.*{said}"):
        prepare(tmp_path)
    assert not (tmp_path / "set").exists()


def test_a_damaged_picture_and_a_missing_file_are_named(tmp_path):
    folder = write(tmp_path / "nlvr2")
    (folder / "dev/dev-1-3-img1.png").write_bytes(b"<html>404</html>")
    said = "dev.json:2: record 'dev-1-3-0': its second image is not a file of a known"
    with pytest.raises(UsageError, match=said):
        prepare(tmp_path)
    (folder / DATA / "train.json").unlink()
    with pytest.raises(UsageError, match="nlvr2: there is no train.json, neither here nor in nlvr"):
        prepare(tmp_path)
