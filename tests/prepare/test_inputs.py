"""What --input may be: files, folders, patterns, braces."""

import pathlib

import pytest

from tests.make_data import build
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.inputs import expand
from vlbeit_jax.types import Kind


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("a/0.tar", "a/b/1.tar", "00.txt", "01.txt", "10.txt", "c[1]/x.jpg", "c1/y.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "star**.txt").touch()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("patterns", "paths"),
    [
        (["a"], ["a"]),
        (["a/*"], ["a/0.tar"]),
        (["a/b*"], ["a/b"]),
        (["**/*.tar"], ["a/0.tar", "a/b/1.tar"]),
        (["a/**"], ["a/0.tar", "a/b/1.tar"]),
        (["c[1]"], ["c[1]"]),
        (["c[1]/x.jpg"], ["c[1]/x.jpg"]),
        (["c[0-9]"], ["c1"]),
        (["star**.txt"], ["star**.txt"]),
        (["{00..01}.txt"], ["00.txt", "01.txt"]),
        (["{01,10}.txt", "01.txt"], ["01.txt", "10.txt"]),
        (["{0,1}{0..1..1,0}.txt"], None),
        (["{a,c1}/{0.tar,y.jpg}"], None),
        (["[01]?.txt"], ["00.txt", "01.txt", "10.txt"]),
        (["./a/../00.txt"], ["a/../00.txt"]),
    ],
)
def test_patterns(folder, patterns, paths):
    if paths is None:
        with pytest.raises(UsageError, match="no such file or folder"):
            expand(patterns)
    else:
        assert list(map(str, expand(patterns))) == paths


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("none/00.txt", "no such file or folder; there is no folder none either"),
        ("{00..02}.txt", r"no such file or folder \(02.txt\)"),
        ("z*", "nothing has a name like this"),
        ("s3://bucket/a.tar", "only files of this machine and gs://BUCKET/NAME are read"),
        ("pipe:cat a.tar", "only files of this machine and gs://BUCKET/NAME are read"),
    ],
)
def test_what_names_nothing_is_refused(folder, pattern, said):
    with pytest.raises(UsageError, match=said):
        expand([pattern])


def test_a_folder_of_pictures_that_is_not_there_is_named(folder, tmp_path):
    with pytest.raises(UsageError, match="--images=none: no such folder"):
        build(tmp_path / "set", Kind.PAIRS, [pathlib.Path("00.txt")], images="none")


def test_a_link_to_nothing_is_named(folder, tmp_path):
    (tmp_path / "broken").symlink_to("nowhere")
    with pytest.raises(UsageError, match="broken: this link leads to nothing"):
        expand(["broken"])
