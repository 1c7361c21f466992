"""Tars and text files become items; what cannot be read is a usage error."""

import gzip
import json
import tarfile

import pytest

from tests.make_data import write_tar
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.formats import text, webdataset
from vlbeit_jax.prepare.formats.base import read_all
from vlbeit_jax.prepare.item import Item

FOUR = [("0.jpg", b"x" * 700), ("0.txt", b"first"), ("1.jpg", b"y" * 700), ("1.txt", b"second")]


def items(path, members, mode="w"):
    found = read_all(webdataset, [write_tar(path, members, mode)])
    return [item for item in found if not item.skip]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tars_are_read_in_their_order(tmp_path, mode):
    assert items(tmp_path / "a.tar", FOUR, mode) == [
        Item("a/0", b"x" * 700, ("first",), source="0.jpg"),
        Item("a/1", b"y" * 700, ("second",), source="1.jpg"),
    ]


@pytest.mark.parametrize(
    "members, wanted",
    [
        (
            [("0.jpg", b"x"), ("0.json", b'{"caption": " from json "}')],
            [Item("a/0", b"x", ("from json",))],
        ),
        (
            [("0.jpg", b"x"), ("0.txt", b"txt"), ("0.json", b'{"caption": "json"}')],
            [Item("a/0", b"x", ("txt",))],
        ),
        (
            [("0.jpg", b"x"), ("0.txt", b" \n"), ("0.json", b'{"caption": null}')],
            [Item("a/0", b"x")],
        ),
        (
            [("0.jpg", b"x"), ("0.txt", b" \n"), ("0.json", b'{"caption": "json"}')],
            [Item("a/0", b"x", ("json",))],
        ),
        ([("0.JPG", b"x"), ("0.TXT", "ä".encode())], [Item("a/0", b"x", ("ä",))]),
        (
            [("0.txt", b"alone"), ("1.webp", b"x"), ("2.json", b"{}")],
            [Item("a/0", None, ("alone",)), Item("a/1", b"x"), Item("a/2")],
        ),
        (
            [("d.e/0.jpg", b"x"), ("d.e/0.txt", b"t"), ("README", b"no key"), ("d.e/0.cls", b"3")],
            [Item("a/0", b"x", ("t",))],
        ),
        ([], []),
        ([("c/0.jpg", b"x"), ("d/0.jpg", b"y")], [Item("a/c/0", b"x"), Item("a/d/0", b"y")]),
    ],
    ids=[
        "json",
        "txt first",
        "blank",
        "blank beside json",
        "upper case",
        "lone parts",
        "other members",
        "empty",
        "folders",
    ],
)
def test_parts_of_one_key_are_one_item(tmp_path, members, wanted):
    found = items(tmp_path / "a.tar", members)
    assert [(item.image, item.captions) for item in found] == [
        (item.image, item.captions) for item in wanted
    ]
    assert len({item.key for item in found}) == len(found) and all(
        item.key.startswith("a/") for item in found
    )


@pytest.mark.parametrize(
    "content",
    [b"{}", b"{", b"[]", b"\xff\xfe", json.dumps({"caption": 5}).encode(), b'{"caption": ["a"]}'],
)
def test_unusable_json_is_a_missing_caption(tmp_path, content):
    assert items(tmp_path / "a.tar", [("0.jpg", b"x"), ("0.json", content), *FOUR[2:]])[0] == Item(
        "a/0", b"x", source="0.jpg"
    )


@pytest.mark.parametrize(
    "length",
    [0, 100, 512, 1000, 1536, 1600, 2048, 2560, 3200, 4096],
)
def test_a_cut_off_tar_is_refused(tmp_path, length):
    """512-byte blocks: each jpg has three (header and content), each txt two; then zeros."""
    whole = write_tar(tmp_path / "a.tar", FOUR).read_bytes()
    (tmp_path / "cut.tar").write_bytes(whole[:length])
    with pytest.raises(UsageError, match="cut.tar"):
        list(read_all(webdataset, [tmp_path / "cut.tar"]))


def test_a_damaged_header_is_refused(tmp_path):
    damaged = bytearray(write_tar(tmp_path / "a.tar", FOUR).read_bytes())
    damaged[2560:2600] = b"\x07" * 40
    (tmp_path / "damaged.tar").write_bytes(damaged)
    with pytest.raises(UsageError, match="damaged.tar"):
        list(read_all(webdataset, [tmp_path / "damaged.tar"]))


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>" * 200, gzip.compress(b"no tar" * 1000), gzip.compress(bytes(5000))[:15]],
    ids=len,
)
def test_what_is_no_tar_is_refused(tmp_path, content):
    (tmp_path / "no.tar").write_bytes(content)
    with pytest.raises(UsageError, match="no.tar"):
        list(read_all(webdataset, [tmp_path / "no.tar"]))


def test_nothing_is_unpacked(tmp_path, monkeypatch):
    """Links, devices and names outside the folder are skipped or read as bytes; no file is made."""
    path = tmp_path / "evil.tar"
    write_tar(path, [(f"{tmp_path}/absolute.jpg", b"x"), ("../up.jpg", b"y")])
    with tarfile.open(path, "a") as archive:
        for name, kind in (
            ("link.jpg", tarfile.SYMTYPE),
            ("device.jpg", tarfile.CHRTYPE),
            ("folder.jpg", tarfile.DIRTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    monkeypatch.chdir(tmp_path)
    assert [item.image for item in read_all(webdataset, [path])] == [b"x", b"y"]
    assert list(tmp_path.iterdir()) == [path] and not (tmp_path.parent / "up.jpg").exists()


def test_each_line_is_a_document(tmp_path):
    (tmp_path / "a.txt").write_bytes("erste Zeile ä\n\n  \n third \r\nlast".encode())
    (tmp_path / "b.txt").write_bytes(b"")
    found = list(read_all(text, [tmp_path / "a.txt", tmp_path / "b.txt"]))
    assert [item.text for item in found] == ["erste Zeile ä", "third", "last"]
    assert len({item.key for item in found}) == 3 and all(
        item.key.startswith("a/") for item in found
    )


@pytest.mark.parametrize(
    "content",
    ["utf-16 ä".encode("utf-16"), "latin ä".encode("latin-1"), b"fine\n" * 9999 + b"\xff\n"],
    ids=len,
)
def test_text_of_another_encoding_is_refused(tmp_path, content):
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UsageError, match="a.txt: not UTF-8"):
        list(read_all(text, [tmp_path / "a.txt"]))


def test_items_keep_the_path_of_their_file(tmp_path):
    members = [
        ("n01/a.b/7.JPG", b"x"),
        ("n01/a.b/7.txt", b"t"),
        ("lone.txt", b"t"),
        ("masks/7.json", b"{}"),
        ("masks/7.png", b"y"),
    ]
    assert [item.source for item in items(tmp_path / "a.tar", members)] == [
        "n01/a.b/7.JPG",
        "lone.txt",
        "masks/7.png",
    ]
    paths = [tmp_path / "en" / "wiki.v2.txt", tmp_path / "de" / "wiki.txt"]
    for path in paths:
        path.parent.mkdir()
        path.write_text("a document\n")
    assert [item.source for item in read_all(text, paths)] == ["en/wiki.v2.txt", "de/wiki.txt"]


def test_files_of_one_name_in_two_folders_give_different_keys(tmp_path):
    tars = [write_tar(tmp_path / folder / "0.tar", FOUR[:2]) for folder in ("a", "b")]
    assert [item.key for item in read_all(webdataset, tars)] == ["a/0/0", "b/0/0"]
    assert [item.key for item in read_all(webdataset, tars[:1])] == ["0/0"]
