"""Tars become items by the names of their members; a damaged tar is refused."""

import gzip
import io
import json
import tarfile

import pytest

from tests.make_data import write_tar
from tests.prepare.formats.reading import Reading
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.formats import webdataset
from vlbeit_jax.prepare.formats.base import BadInput, read_all
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
    [b"{}", b"{", b"[]", b"\xff\xfe", json.dumps({"caption": 5}).encode(), b'{"caption": []}'],
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
    found = list(read_all(webdataset, [path]))
    assert [item.image for item in found] == [b"x", b"y", None, None]
    assert [item.fault for item in found] == ["", "", "link", "special_file"]
    assert list(tmp_path.iterdir()) == [path] and not (tmp_path.parent / "up.jpg").exists()


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


def test_files_of_one_name_in_two_folders_give_different_keys(tmp_path):
    tars = [write_tar(tmp_path / folder / "0.tar", FOUR[:2]) for folder in ("a", "b")]
    assert [item.key for item in read_all(webdataset, tars)] == ["a/0/0", "b/0/0"]
    assert [item.key for item in read_all(webdataset, tars[:1])] == ["0/0"]


def keyed(path, members):
    """From key to picture and captions, of the items of a tar."""
    found = Reading("webdataset", write_tar(path, members))
    return found, {item.key.partition("/")[2]: (item.image, item.captions) for item in found.items}


def pair_of(name, number, separator="."):
    return [
        (f"{name}{separator}png", b"%d" % number),
        (f"{name}{separator}txt", b"caption %d" % number),
    ]


def test_members_of_one_name_are_examples_of_their_own(tmp_path):
    found, items = keyed(tmp_path / "a.tar", sum((pair_of("image", i) for i in range(40)), []))
    assert list(items.values()) == [(b"%d" % i, (f"caption {i}",)) for i in range(40)]
    assert list(items)[:3] == ["image", "image~2", "image~3"] and not found.faults


def test_names_that_repeat_with_different_parts_are_refused(tmp_path):
    """Otherwise a caption could be that of another picture."""
    members = [("a.png", b"1"), ("a.png", b"2"), ("a.txt", b"of which?"), *pair_of("b", 3)]
    found, items = keyed(tmp_path / "a.tar", members)
    assert found.faults == {"repeated_name": 2} and list(items) == ["b"]
    members = [("a.png", b"%d" % i) for i in range(3)] + [("a.txt", b"%d" % i) for i in range(3)]
    found, items = keyed(tmp_path / "b.tar", members)
    assert found.faults == {"repeated_name": 5} and not items


def test_a_key_that_comes_back_later_gets_another_name(tmp_path):
    members = [*pair_of("0", 0), *pair_of("1", 1), *pair_of("0", 2), ("0~2.png", b"taken")]
    _, items = keyed(tmp_path / "a.tar", members)
    assert items["0"][0] == b"0" and items["0~3"] == (b"2", ("caption 2",))
    assert items["0~2"][0] == b"taken"


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (["000", "photo.000", "photo.001"], ["000", "photo.000", "photo.001"]),
        (["IMG.2020.000", "IMG.2020.001"], ["IMG.2020.000", "IMG.2020.001"]),
        (["a/x.1", "a/x.2", "b/x.1"], ["a/x.1", "a/x.2", "b/x.1"]),
        ([f"{day}.{hour}" for day in "abc" for hour in "12"],) * 2,
    ],
)
def test_dots_in_keys(tmp_path, names, keys):
    members = sum((pair_of(name, i) for i, name in enumerate(names)), [])
    _, items = keyed(tmp_path / "a.tar", members)
    assert items == {
        key: (b"%d" % number, (f"caption {number}",)) for number, key in enumerate(keys)
    }


def test_dots_in_keys_and_names_of_parts(tmp_path):
    members = []
    for number in range(3):
        members += [(f"a.{number}.image.jpg", b"%d" % number), (f"a.{number}.caption.txt", b"c")]
    _, items = keyed(tmp_path / "a.tar", members)
    assert items == {f"a.{number}": (b"%d" % number, ("c",)) for number in range(3)}


def test_several_pictures_with_several_texts_are_no_example(tmp_path):
    """Nobody can tell which belong together."""
    members = [(f"0.{each}", b"x") for each in ("a.jpg", "b.jpg", "c.txt", "d.txt")]
    found, _ = keyed(tmp_path / "a.tar", [*members, *pair_of("1", 1)])
    assert found.faults == {"several_pictures_and_texts": 1} and len(found.items) == 1


def test_pictures_alone_with_dots_in_their_keys(tmp_path):
    """Words between the dots name parts, numbers belong to the key."""
    for names, count in ((["a.1", "a.2", "b.1", "b.2", "c.1"], 5), (["a", "a.x", "b", "b.x"], 2)):
        found = Reading(
            "webdataset", write_tar(tmp_path / "a.tar", [(f"{n}.png", b"x") for n in names])
        )
        assert len(found.items) == count and sum(found.skipped.values()) == len(names) - count


def test_names_of_parts_are_no_keys(tmp_path):
    """The picture that is called so comes before a mask; the mask is counted."""
    members = []
    for number in range(3):
        members += [(f"{number}.seg.png", b"mask"), (f"{number}.image.jpg", b"%d" % number)]
        members += [(f"{number}.caption.txt", b"c"), (f"{number}.json", b"{}")]
    found, items = keyed(tmp_path / "a.tar", members)
    assert items == {f"{i}": (b"%d" % i, ("c",)) for i in range(3)}
    assert found.skipped == {"unused_part": 3}


def test_parts_need_not_follow_each_other(tmp_path):
    pairs = [pair_of(f"{i:03}", i) for i in range(20)]
    for mode in ("w", "w:gz"):
        members = [picture for picture, _ in pairs] + [text for _, text in pairs]
        found = Reading("webdataset", write_tar(tmp_path / "a.tar", members, mode))
        assert found.pairs == [(b"%d" % i, (f"caption {i}",)) for i in range(20)]


def test_hidden_members_are_counted_and_skipped(tmp_path):
    members = [(f"./._{i}.png", b"mac") for i in range(3)] + pair_of("./0", 0)
    members += [("__MACOSX/0.png", b"mac"), (".DS_Store", b"mac"), ("README", b"no suffix")]
    found, items = keyed(tmp_path / "a.tar", members)
    assert items == {"0": (b"0", ("caption 0",))}
    assert found.skipped == {"hidden": 5, "other_file": 1}


def test_a_hard_link_is_the_picture_that_it_names(tmp_path):
    path = write_tar(tmp_path / "a.tar", [("0.jpg", b"x"), ("0.txt", b"t"), ("1.txt", b"u")])
    links = {"1.jpg": "0.jpg", "2.jpg": "0.jpg", "3.jpg": "none.jpg", "4.jpg": "2.jpg"}
    for name, target in links.items():
        with tarfile.open(path, "a") as archive:
            info = tarfile.TarInfo(name)
            info.type = tarfile.SYMTYPE if name == "2.jpg" else tarfile.LNKTYPE
            info.linkname = target
            archive.addfile(info)
    found = Reading("webdataset", path)
    assert found.pairs == [(b"x", ("t",)), (b"x", ("u",))] and found.faults == {"link": 3}


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


def test_a_tar_with_fewer_pictures_than_img2dataset_wrote_is_damaged(tmp_path):
    path = write_tar(tmp_path / "00000.tar", FOUR)
    stats = {"count": 4, "successes": 2, "failed_to_download": 1, "failed_to_resize": 1}
    (tmp_path / "00000_stats.json").write_text(json.dumps(stats))
    found = Reading("webdataset", tmp_path)
    assert len(found.items) == 2 and found.skipped == {"sidecar": 1}
    assert found.plan.links["alive"] == 2 and found.plan.links["given"] == 4
    (tmp_path / "00000_stats.json").write_text(json.dumps(stats | {"successes": 3}))
    with pytest.raises(BadInput, match="00000.tar: it holds 2 pictures.* says 3"):
        Reading("webdataset", path)


def test_zstandard_is_read_and_a_cut_file_is_damaged(tmp_path):
    zstandard = pytest.importorskip("zstandard", reason="zstandard is not installed")
    whole = write_tar(tmp_path / "a.tar", FOUR).read_bytes()
    packed = zstandard.ZstdCompressor().compress(whole)
    (tmp_path / "b.tar.zst").write_bytes(packed)
    assert Reading("webdataset", tmp_path / "b.tar.zst").pairs == [
        (b"x" * 700, ("first",)),
        (b"y" * 700, ("second",)),
    ]
    (tmp_path / "c.tar.zst").write_bytes(packed[:-20])
    with pytest.raises(BadInput, match="cannot be read as a tar"):
        Reading("webdataset", tmp_path / "c.tar.zst")


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


def test_names_that_are_not_unicode_are_read(tmp_path):
    """Whoever stores them mends them (prepare/repair.py)."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", encoding="latin-1", format=tarfile.USTAR_FORMAT) as archive:
        info = tarfile.TarInfo("été.jpg")
        info.size = 1
        archive.addfile(info, io.BytesIO(b"x"))
    assert [item.image for item in Reading("webdataset", path).items] == [b"x"]
