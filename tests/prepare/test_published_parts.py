"""Benchmarks in parts: the same bytes whatever the parts and the processes, and exact counts."""

import json
import shutil

import pytest

from tests.make_data import build
from tests.prepare import benchmarks, test_masks, test_nlvr2, test_tfds
from tests.prepare.benchmarks import write_json
from vlbeit_jax.data.source import META_FILE
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.formats import imagenet, listed, official
from vlbeit_jax.prepare.work_plan import read_plan
from vlbeit_jax.types import Kind


def vqav2(folder):
    """Two pictures of val2014 are in train2014 too, with four questions."""
    source = benchmarks.vqav2(folder, train=6, val=5)
    for number in (1, 3):
        held = source / "val2014" / f"COCO_val2014_{200 + number:012d}.jpg"
        shutil.copy(held, source / "train2014" / f"COCO_train2014_{100 + number:012d}.jpg")
    path = source / "v2_mscoco_train2014_annotations.json"
    found = json.loads(path.read_text())
    for each in found["annotations"]:
        each["answers"] = benchmarks.answers(f"answer {each['question_id'] // 1000}")
    write_json(path, found)
    return source


def karpathy(folder):
    """A picture of the test split is in the other two."""
    source = benchmarks.karpathy_coco(folder)
    held = (folder / "val2014" / "COCO_val2014_000000000006.jpg").read_bytes()
    (folder / "val2014" / "COCO_val2014_000000000005.jpg").write_bytes(held)
    (folder / "train2014" / "COCO_train2014_000000000001.jpg").write_bytes(held)
    return source


def flat_imagenet(folder):
    """A class whose pictures are all held out, but one."""
    source = benchmarks.imagenet(folder, "kit")
    held = sorted((source / "val").iterdir())[0].read_bytes()
    sorted((source / "train" / benchmarks.WNIDS[1]).iterdir())[0].write_bytes(held)
    return source


def ade20k(folder):
    source = test_masks.ade20k(folder)
    held = sorted((source / "images" / "validation").iterdir())[0]
    for part in ("images", "annotations"):
        name = held.name if part == "images" else f"{held.stem}.png"
        copy = source / part / "training" / f"copy.{name.partition('.')[2]}"
        shutil.copy(source / part / "validation" / name, copy)
    return source


def nlvr2(folder):
    source = test_nlvr2.write(folder)
    shared = (source / "test1/test1-2-0-img1.png").read_bytes()
    (source / "dev/dev-1-3-img0.png").write_bytes(shared)
    return source


def tfds(folder):
    splits = {
        "train": test_tfds.labelled([1, 2, 3, 4, 9]),
        "validation": test_tfds.labelled([9, 8]),
    }
    return test_tfds.write(folder, test_tfds.IMAGENET, splits)


# Maker, kind, what is left out.
CASES = {
    "vqav2": (vqav2, Kind.QUESTIONS, {"picture_in_validation": 4}),
    "vqav2-trainval": (vqav2, Kind.QUESTIONS, {}),
    "karpathy": (karpathy, Kind.PAIRS, {"picture_in_test": 2}),
    "imagenet": (flat_imagenet, Kind.LABELLED_IMAGES, {"picture_in_validation": 1}),
    "ade20k": (ade20k, Kind.MASKS, {"picture_in_validation": 1}),
    "nlvr2": (nlvr2, Kind.STATEMENTS, {"picture_in_test": 1}),
    "tfds": (tfds, Kind.LABELLED_IMAGES, {"picture_in_validation": 1}),
}


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(official, "UNIT_PICTURES", 2)
    monkeypatch.setattr(imagenet, "UNIT_PICTURES", 2)


@pytest.mark.parametrize("name", CASES)
def test_small_parts_in_any_order_give_the_same_bytes(tmp_path, name, request):
    make, kind, left_out = CASES[name]
    source, out = make(tmp_path / "source"), tmp_path / "set"
    given = {"source_format": name, "max_dropped": 0}
    meta = build(tmp_path / "whole", kind, [source], **given)
    if name != "vqav2-trainval":  # Of which a hash chooses the pictures.
        assert meta["left_out"] == left_out
    request.getfixturevalue("small_parts")
    assert not build(out, kind, [source], part_range=(1, 3), **given)
    plan = read_plan(tmp_path / "set.work")
    assert len(plan.units) >= 3 and plan.finished(1) and not plan.finished(0)
    assert build(out, kind, [source], **given) and contents(out) == contents(tmp_path / "whole")


def test_what_is_left_out_is_not_counted(tmp_path, small_parts):
    meta = build(tmp_path / "q", Kind.QUESTIONS, [vqav2(tmp_path / "a")], source_format="vqav2")
    assert sum(meta["answer_counts"]["train"].values()) == meta["counts"]["train"] == 8
    assert set(meta["answer_counts"]["train"]) == {f"answer {n}" for n in (100, 102, 104, 105)}
    source = flat_imagenet(tmp_path / "b")
    meta = build(tmp_path / "i", Kind.LABELLED_IMAGES, [source], source_format="imagenet")
    assert meta["class_counts"]["train"][benchmarks.WNIDS[1]] == 1
    assert sum(meta["class_counts"]["train"].values()) == meta["counts"]["train"] == 5
    source = ade20k(tmp_path / "c")
    with_copy = build(tmp_path / "m", Kind.MASKS, [source], source_format="ade20k")
    (source / "images/training/copy.jpg").unlink()
    without = build(tmp_path / "n", Kind.MASKS, [source], source_format="ade20k")
    assert with_copy["class_counts"] == without["class_counts"]
    assert with_copy["fingerprint"] == without["fingerprint"]


@pytest.mark.slow
def test_two_processes_make_the_same_bytes(tmp_path, small_parts):
    source, out = vqav2(tmp_path / "vqa"), tmp_path / "set"
    build(tmp_path / "one", Kind.QUESTIONS, [source], source_format="vqav2")
    build(out, Kind.QUESTIONS, [source], source_format="vqav2", workers=2)
    assert contents(out) == contents(tmp_path / "one")


def test_parts_of_other_questions_are_not_taken_for_these(tmp_path, small_parts):
    source, out = vqav2(tmp_path / "vqa"), tmp_path / "set"
    build(out, Kind.QUESTIONS, [source], source_format="vqav2", part_range=(0, 1))
    path = source / "v2_mscoco_val2014_annotations.json"
    path.write_text(path.read_text().replace("a dog", "a dug"))
    with pytest.raises(UsageError, match="1 finished parts of another plan"):
        build(out, Kind.QUESTIONS, [source], source_format="vqav2")
    assert not (out / META_FILE).exists()


@pytest.mark.parametrize(
    "text",
    [
        '{"list": [{"a": 1}, {"b": "ü ] } \\" \\u00e9"}], "more": [{}]}',
        '\n{ "info" : {"list": [1]} ,\t"list" : [ {"a": [1, {"c": null}]} ] } ',
        '{"list": []}',
        '\ufeff{"list": [{"a": "日本"}]}',
    ],
)
def test_objects_are_found_at_their_places(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    found = list(listed.listed(path, "list"))
    assert [each for _, each in found] == json.loads(text.removeprefix("\ufeff"))["list"]
    places = [place for place, _ in found]
    assert list(listed.read_at(path, places[::-1])) == [each for _, each in found][::-1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"list": [{"a": 1}, {"b": 2}', "cannot be read as JSON .*get it again"),
        ('{"list": [{"a": 1}]', "cannot be read as JSON"),
        ('{"list": [{"a": 1} {"a": 2}]}', "cannot be read as JSON"),
        ('{"list" [', "cannot be read as JSON"),
        ("{", "cannot be read as JSON"),
        ("", "cannot be read as JSON"),
        ('{"list": [{"a": "\udcff"}]}', "cannot be read as JSON"),
        ('{"list": [1]}', "no list of objects under 'list'"),
        ('{"list": {"a": 1}}', "no list of objects under 'list'"),
        ('{"a": [{}]}', "no list of objects under 'list'"),
        ("[{}]", "no list of objects under 'list'"),
        ("{}", "no list of objects under 'list'"),
    ],
)
def test_files_of_another_layout_are_refused(tmp_path, text, said):
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError, match=f"a.json: .*{said}"):
        list(listed.listed(path, "list"))
