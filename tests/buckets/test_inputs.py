"""Inputs in a bucket give the items that they give on a disk."""

import dataclasses
import json
import pathlib
import re
import tempfile

import pytest

from tests.make_data import build, encoded, pair_members, write_tar
from tests.make_data import picture as picture_of
from tests.prepare.formats.conftest import GOLDEN, golden  # noqa: F401 - a fixture
from tests.prepare.formats.reading import Reading
from vlbeit_jax.buckets import inputs
from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import copy_tree, input_path, place
from vlbeit_jax.prepare.formats import NEEDS_DISK, base
from vlbeit_jax.prepare.formats.detect import recognise
from vlbeit_jax.prepare.inputs import expand
from vlbeit_jax.types import Kind

EXPECTED = json.loads((GOLDEN / "expected.json").read_text())


@pytest.fixture(autouse=True)
def new_inputs():
    inputs.forget()


@pytest.fixture(scope="module")
def uploaded(cloud, golden):  # noqa: F811
    copy_tree(golden, place(f"{cloud.address}/golden"))
    return input_path(f"{cloud.address}/golden")


def without_places(found):
    """Items without the file and line for messages."""
    return [dataclasses.replace(item, place="") for item in found.items]


@pytest.mark.parametrize("name", [n for n in EXPECTED if EXPECTED[n]["format"] not in NEEDS_DISK])
def test_golden_inputs_give_their_records(golden, uploaded, name):  # noqa: F811
    given, kind, form = (EXPECTED[name][each] for each in ("input", "kind", "format"))
    assert recognise("auto", [uploaded / given], Kind(kind)) == form
    there, here = (Reading(form, top / given, kind=kind) for top in (uploaded, golden))
    assert without_places(there) == without_places(here) and there.items
    assert (there.faults, there.skipped) == (here.faults, here.skipped)
    assert (there.plan.links, there.plan.items) == (here.plan.links, here.plan.items)


# Of each format that needs a disk: a kind, the input, and the files by which it is recognised.
ON_A_DISK = {
    "ade20k": (Kind.MASKS, "", ["images/training/a.jpg", "annotations/training/a.png"]),
    "croissant": (Kind.PAIRS, "croissant.json", ["croissant.json", "images/a.jpg"]),
    "imagenet": (Kind.LABELLED_IMAGES, "", ["train/n01440764/a.JPEG", "val/a.JPEG"]),
    "nlvr2": (Kind.STATEMENTS, "", ["dev.json", "images/dev/dev-0-0-img0.png"]),
    "tfds": (Kind.PAIRS, "1.0.0", ["1.0.0/dataset_info.json", "1.0.0/features.json"]),
    "vqav2": (Kind.QUESTIONS, "", ["v2_OpenEnded_mscoco_val2014_questions.json"]),
    "vqav2-trainval": (Kind.QUESTIONS, "", ["v2_OpenEnded_mscoco_val2014_questions.json"]),
}


@pytest.mark.parametrize("name", sorted(NEEDS_DISK))
def test_a_format_that_needs_a_disk_says_what_to_copy(folder, tmp_path, name):
    """All that it reads is in the copy, and the input that the message names is recognised."""
    kind, given, files = ON_A_DISK[name]
    for file in files:
        (folder / "top" / file).write_text('{"conformsTo": "http://mlcommons.org/croissant/1.0"}')
    with pytest.raises(UsageError, match=f"--format={name} reads files of this machine") as caught:
        build(tmp_path / "set", kind, [folder / "top" / given], source_format=name)
    advice = r"cp --recursive (\S+) \. and give --input=(\S+), or mount"
    found = re.search(advice, str(caught.value))
    assert found, caught.value
    copied, input_ = place(found[1]), found[2]
    copy_tree(copied, tmp_path / copied.name)  # As gcloud does it.
    assert recognise(name, [tmp_path / input_], kind) == name
    there = [path.as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    assert all(any(path.endswith(file) for path in there) for file in files)


@pytest.fixture(scope="module")
def tars(cloud):
    """Three tars in a folder of the bucket, and what else may lie there."""
    folder = place(f"{cloud.address}/tars")
    with tempfile.TemporaryDirectory() as made:
        for n in range(3):
            write_tar(pathlib.Path(made, f"{n:03d}.tar"), pair_members(40, 30 * n))
        copy_tree(pathlib.Path(made), folder / "a")
    (folder / "a" / ".hidden").write_text("")
    (folder / "b[1]" / "x.txt").write_text("x")
    (folder / "b1" / "x.txt").write_text("x")
    return folder


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a", ["a"]),
        ("a/*.tar", ["a/000.tar", "a/001.tar", "a/002.tar"]),
        ("a/{001..002}.tar", ["a/001.tar", "a/002.tar"]),
        ("**/x.txt", ["b1/x.txt", "b[1]/x.txt"]),
        ("b[1]", ["b[1]"]),
        ("b[0-9]/*", ["b1/x.txt"]),
        ("b*", ["b1", "b[1]"]),
    ],
)
def test_patterns(tars, pattern, names):
    found = expand([f"{tars}/{pattern}"])
    assert [path.relative_to(tars).as_posix() for path in found] == names


@pytest.mark.parametrize("pattern", ["none", "a/*.zip", "a/{002..003}.tar"])
def test_what_names_nothing_is_refused(tars, pattern):
    with pytest.raises(UsageError, match="no such object or folder"):
        expand([f"{tars}/{pattern}"])


def test_a_bucket_and_a_disk_are_not_mixed(tars, tmp_path):
    (tmp_path / "x.tar").touch()
    with pytest.raises(UsageError, match="some are in a bucket and some are not"):
        expand([str(tmp_path / "x.tar"), str(tars / "a")])


def test_a_set_is_prepared_from_a_bucket_into_it(cloud, folder, tars, tmp_path, monkeypatch):
    """A tar is fetched once, and its copy goes."""
    monkeypatch.setattr(base, "UNIT_TEXT", 1)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    copy_tree(tars / "a", tmp_path / "a")
    before = cloud.requests.counts
    build(folder / "set", Kind.PAIRS, [tars / "a"], validation_share=0.2)
    spent = cloud.requests.since(before)
    build(tmp_path / "set", Kind.PAIRS, [tmp_path / "a"], validation_share=0.2)
    there, here = (
        {path.name: path.read_bytes() for path in (top / "set").iterdir()}
        for top in (folder, tmp_path)
    )
    assert there == here
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "set"]
    # Of each tar, one request for its head by each look, and one for all of it.
    assert spent["read"] < 60 and spent["write"] < 40, spent


def test_a_damaged_object_is_named_as_it_was_given(folder, tmp_path):
    write_tar(tmp_path / "0.tar", pair_members(4))
    content = (tmp_path / "0.tar").read_bytes()
    (folder / "in" / "0.tar").write_bytes(content[: len(content) // 2 - 700])
    with pytest.raises(UsageError) as caught:
        build(folder / "set", Kind.PAIRS, [folder / "in" / "0.tar"])
    assert f"{folder / 'in' / '0.tar'}: " in str(caught.value)
    assert "staging" not in str(caught.value)
    assert [path.name for path in folder.iterdir()] == ["in"]


def test_annotated_pictures_are_read_beside_their_file(folder, tmp_path):
    lines = []
    for number in range(6):
        picture = tmp_path / "in" / "pictures" / f"{number}.png"
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(encoded(picture_of(number, 16, 18)))
        lines.append({"image": f"pictures/{number}.png", "label": "ab"[number % 2]})
    (tmp_path / "in" / "x.jsonl").write_text("\n".join(map(json.dumps, lines)))
    copy_tree(tmp_path / "in", folder / "in")
    kind, options = Kind.LABELLED_IMAGES, {"source_format": "jsonl", "validation_share": 0.3}
    wanted = build(tmp_path / "set", kind, [tmp_path / "in" / "x.jsonl"], **options)
    found = build(folder / "set", kind, [folder / "in" / "x.jsonl"], **options)
    assert found["fingerprint"] == wanted["fingerprint"] and found["items"] == 6
