"""Captions and labels of the examples in a tar."""

import json

import pytest

from tests.make_data import write_tar
from tests.prepare.formats.reading import Reading
from tests.prepare.formats.tar_items import FOUR, items
from vlbeit_jax.prepare.item import Item


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
    [b"{}", b"{", b"[]", b"\xff\xfe", json.dumps({"caption": 5}).encode(), b'{"caption": []}'],
)
def test_unusable_json_is_a_missing_caption(tmp_path, content):
    assert items(tmp_path / "a.tar", [("0.jpg", b"x"), ("0.json", content), *FOUR[2:]])[0] == Item(
        "a/0", b"x", source="0.jpg"
    )


@pytest.mark.parametrize(
    ("members", "captions"),
    [
        ([("0.txt", b"one\n two \n\nthree")], ("one", "two", "three")),
        ([("0.txt", b"one\ntwo"), ("0.json", b'{"caption": "one\\ntwo"}')], ("one two",)),
        ([("0.json", b'{"text": "t"}')], ("t",)),
        ([("0.json", b'{"caption": ["a", "b"]}')], ("a", "b")),
        ([("0.json", b'{"captions": [{"text": "a"}, {"text": "b"}]}')], ("a", "b")),
        ([("0.caption", b"c")], ("c",)),
    ],
)
def test_several_captions(tmp_path, members, captions):
    found = Reading("webdataset", write_tar(tmp_path / "a.tar", [("0.jpg", b"x"), *members]))
    assert found.pairs == [(b"x", captions)]


def test_captions_in_other_encodings_are_decoded_or_have_no_words(tmp_path):
    texts = ["café au lait", "Größe", "plain"]
    captions = [
        (texts[0].encode("latin-1"), {"decoded_as_windows_1252": 1}),
        (texts[0].encode("utf-16"), {"decoded_as_utf_16": 1}),
        (texts[2].encode("utf-16-be"), {"decoded_as_utf_16": 1}),
        (texts[1].encode("utf-8-sig"), {}),
        ("пароход плывёт".encode("cp1251"), None),
        (b"\xff\xfe\x00", None),
    ]
    for content, repairs in captions:
        found = Reading(
            "webdataset", write_tar(tmp_path / "a.tar", [("0.jpg", b"x"), ("0.txt", content)])
        )
        (item,) = found.items
        if repairs is None:
            assert not item.captions and item.no_words == "undecodable_caption"
        else:
            assert item.captions[0] in texts and found.repairs == repairs and not item.no_words


def test_labels_of_tars_of_tars_and_of_cls(tmp_path):
    for name in ("n01", "n02"):
        write_tar(tmp_path / f"{name}.tar", [(f"{name}_0.JPEG", name.encode())])
    inner = [(f"{name}.tar", (tmp_path / f"{name}.tar").read_bytes()) for name in ("n01", "n02")]
    path = write_tar(tmp_path / "whole.tar", [*inner, ("._n03.tar", b"mac")])
    found = Reading("tar_of_tars", path)
    assert [(item.image, item.label) for item in found.items] == [(b"n01", "n01"), (b"n02", "n02")]
    assert found.skipped == {"hidden": 1}
    members = [("0.jpg", b"x"), ("0.cls", b"7"), ("1.jpg", b"y"), ("1.cls", b"cat\n")]
    found = Reading("webdataset", write_tar(tmp_path / "cls.tar", members))
    assert [item.label for item in found.items] == [7, "cat"]
