"""Which members of a tar are one example: by their names, and each member once."""

import pytest

from tests.make_data import write_tar
from tests.prepare.formats.reading import Reading
from tests.prepare.formats.tar_items import FOUR, items
from vlbeit_jax.prepare.formats import webdataset
from vlbeit_jax.prepare.formats.base import read_all


def keyed(path, members):
    """From key to picture and captions, of the items of a tar."""
    found = Reading("webdataset", write_tar(path, members))
    return found, {item.key.partition("/")[2]: (item.image, item.captions) for item in found.items}


def pair_of(name, number, separator="."):
    return [
        (f"{name}{separator}png", b"%d" % number),
        (f"{name}{separator}txt", b"caption %d" % number),
    ]


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
