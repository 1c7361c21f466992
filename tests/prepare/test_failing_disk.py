"""A disk that cannot be read for a moment makes no picture missing and no file damaged.

Otherwise a set that was prepared over a mount that came and went would lack a part of its records.
"""

import errno
import os
import pathlib
import tarfile

import pytest

from tests.make_data import build, encoded, picture, write_tar
from tests.prepare.test_damage import caption
from vlbeit_jax.errors import StorageError
from vlbeit_jax.types import Kind


@pytest.fixture
def folder(tmp_path):
    """Pictures with captions beside them, and a file of lines that names both."""
    top = tmp_path / "in"
    top.mkdir()
    for number in range(4):
        (top / f"{number}.png").write_bytes(encoded(picture(number, 32, 32)))
        (top / f"{number}.txt").write_text(f"picture {number}")
    return top


def failing(monkeypatch, name, number):
    read = pathlib.Path.read_bytes

    def fails(path):
        if path.name == name:
            raise OSError(number, "x", str(path))
        return read(path)

    monkeypatch.setattr(pathlib.Path, "read_bytes", fails)


@pytest.mark.parametrize("name", ["2.png", "2.txt"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOTCONN, errno.EMFILE])
def test_a_picture_or_caption_that_cannot_be_read_now_is_not_left_out(
    folder, tmp_path, monkeypatch, name, number
):
    with monkeypatch.context() as patch, pytest.raises(StorageError, match=f"{name} .*run the"):
        failing(patch, name, number)
        build(tmp_path / "set", Kind.PAIRS, [folder], source_format="folder", max_dropped=1.0)
    assert not (tmp_path / "set").exists()
    meta = build(tmp_path / "set", Kind.PAIRS, [folder], source_format="folder")
    assert sum(meta["counts"].values()) == 4


def test_a_picture_of_an_index_is_not_missing_for_it(folder, tmp_path, monkeypatch):
    lines = [f"{number}.png\tpicture {number}" for number in range(4)]
    (folder / "index.tsv").write_text("image\tcaption\n" + "\n".join(lines) + "\n")
    failing(monkeypatch, "2.png", errno.ESTALE)
    with pytest.raises(StorageError, match=r"2\.png fails: Stale file handle"):
        build(
            tmp_path / "set",
            Kind.PAIRS,
            [folder / "index.tsv"],
            source_format="tsv",
            max_dropped=1.0,
        )


@pytest.mark.parametrize("bad_inputs", ["skip", "stop"])
@pytest.mark.parametrize("raised", [errno.EIO, errno.ENOSPC], ids=["broken", "TMPDIR is full"])
def test_a_tar_is_not_damaged_for_it(tmp_path, monkeypatch, bad_inputs, raised):
    members = [(f"{n}.{kind}", each) for n in range(9) for kind, each in caption(n).items()]
    found = [write_tar(tmp_path / f"{name}.tar", members) for name in "ab"]

    def fails(*_):
        raise OSError(raised, os.strerror(raised))

    monkeypatch.setattr(tarfile.TarFile, "extractfile", fails)
    with pytest.raises(StorageError, match=os.strerror(raised)):
        build(tmp_path / "set", Kind.PAIRS, found, bad_inputs=bad_inputs)
    assert not (tmp_path / "set").exists()
