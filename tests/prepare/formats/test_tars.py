"""Tars: plain, compressed, damaged, with links; nothing of them is unpacked."""

import gzip
import io
import json
import tarfile

import pytest

from tests.make_data import write_tar
from tests.prepare.formats.reading import Reading
from tests.prepare.formats.tar_items import FOUR, items
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.formats import webdataset
from vlbeit_jax.prepare.formats.base import BadInput, read_all
from vlbeit_jax.prepare.item import Item


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tars_are_read_in_their_order(tmp_path, mode):
    assert items(tmp_path / "a.tar", FOUR, mode) == [
        Item("a/0", b"x" * 700, ("first",), source="0.jpg"),
        Item("a/1", b"y" * 700, ("second",), source="1.jpg"),
    ]


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


def test_names_that_are_not_unicode_are_read(tmp_path):
    """Whoever stores them mends them (prepare/repair.py)."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", encoding="latin-1", format=tarfile.USTAR_FORMAT) as archive:
        info = tarfile.TarInfo("été.jpg")
        info.size = 1
        archive.addfile(info, io.BytesIO(b"x"))
    assert [item.image for item in Reading("webdataset", path).items] == [b"x"]
