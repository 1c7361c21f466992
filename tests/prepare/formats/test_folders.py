"""Folders of pictures of any nesting, with captions beside them, labels, and what else is there."""

import json

import pytest

from tests.prepare.formats.reading import Reading
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.formats import folder

PNG = b"\x89PNG\r\n\x1a\n and more"


def write(top, files):
    for name, content in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(content)
    return top


def test_captions_labels_and_what_is_passed_over(tmp_path, monkeypatch):
    top = write(
        tmp_path / "set",
        {
            "a.jpg": b"a",
            "a.txt": b"one\ntwo\n",
            "b/c/d.PNG": b"d",
            "b/c/d.TXT": b"upper",
            "b/c/e.webp": b"e",
            "b/c/e.json": json.dumps({"caption": "told by json"}).encode(),
            "b/no_suffix": PNG,
            "b/notes.txt": b"no caption",
            "b/._a.jpg": b"mac",
            ".hidden/a.jpg": b"hidden",
            "empty.jpg": b"",
        },
    )
    found = Reading("folder", top)
    assert [(item.source, item.captions, item.label) for item in found.items] == [
        ("set/a.jpg", ("one", "two"), ""),
        ("set/b/c/d.PNG", ("upper",), "c"),
        ("set/b/c/e.webp", ("told by json",), "c"),
        ("set/b/no_suffix", (), "b"),
        ("set/empty.jpg", (), ""),
    ]
    assert found.items[-1].image == b"" and found.items[-2].image == PNG
    assert found.skipped == {"other_file": 1, "hidden": 1} and found.plan.items == 5
    monkeypatch.setattr(folder, "UNIT_PICTURES", 2)
    parts = Reading("folder", top)
    assert len(parts.plan.units) == 3 and parts.items == found.items


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    top = write(tmp_path / "set", {"a.jpg": b"a"})
    write(tmp_path / "elsewhere", {"b.jpg": b"b"})
    (top / "linked").symlink_to(tmp_path / "elsewhere")
    (top / "circle").symlink_to(top)
    found = Reading("folder", top)
    assert [item.image for item in found.items] == [b"a", b"b"] and found.skipped == {"link": 1}


def test_a_picture_that_vanishes_is_counted(tmp_path):
    from vlbeit_jax.prepare.formats.base import Options, read_unit

    top = write(tmp_path / "set", {"a.jpg": b"a", "b.jpg": b"b"})
    (unit,) = folder.plan([top], Options()).units
    (top / "a.jpg").unlink()
    found = list(read_unit(folder, unit, Options()))
    assert [item.fault for item in found] == ["missing_file", ""]


def test_metadata_in_several_folders(tmp_path):
    for name in ("train", "test"):
        rows = [{"file_name": f"{i}.jpg", "text": f"{name} {i}"} for i in range(2)]
        write(tmp_path / "set" / name, {f"{i}.jpg": name.encode() for i in range(2)})
        (tmp_path / "set" / name / "metadata.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows)
        )
    found = Reading("imagefolder", tmp_path / "set")
    assert [(item.image, item.captions) for item in found.items] == [
        (name.encode(), (f"{name} {i}",)) for name in ("test", "train") for i in range(2)
    ]
    assert len({item.key for item in found.items}) == 4
    with pytest.raises(UsageError, match="there is no metadata.jsonl"):
        Reading("imagefolder", write(tmp_path / "none", {"a.jpg": b"a"}))
