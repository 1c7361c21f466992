"""A path in a bucket answers as one on a disk."""

import pathlib
import pickle

import pytest

from vlbeit_jax import copies, places
from vlbeit_jax.buckets.path import BucketPath
from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import place
from vlbeit_jax.runtime import health


def test_only_an_address_of_a_bucket_is_one():
    found = place("gs://bucket/a/b.json")
    assert str(found) == "gs://bucket/a/b.json" and isinstance(found, BucketPath)
    assert str(place("gs://bucket/a/") / ".." / "c") == "gs://bucket/a/../c"
    assert str(found.parent / "c") == "gs://bucket/a/c" and found.with_suffix(".x").name == "b.x"
    assert found.resolve() == found and found.is_absolute() and place(found) == found
    assert pickle.loads(pickle.dumps(found)) == found
    assert type(place("gs/a")) is type(pathlib.Path()) and not isinstance(
        place("./gs:x"), BucketPath
    )


@pytest.mark.parametrize("given", ["s3://b", "file:///tmp/x", "gs:/bucket/x", "gs://"])
def test_other_addresses_are_refused(given):
    """They became a local folder called "s3:"."""
    with pytest.raises(UsageError, match=f"--from={given}: only folders of this machine"):
        place(given, "--from")


def tree(folder: pathlib.Path) -> None:
    """The same files on either side."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sub" / "deep").mkdir(parents=True, exist_ok=True)
    (folder / "a.txt").write_text("ä\nb\n")
    (folder / "sub" / "b.bin").write_bytes(bytes(range(9)))
    (folder / "sub" / "deep" / ".hidden~").write_bytes(b"")


def seen(folder: pathlib.Path) -> dict[str, object]:
    """What a program may ask of a folder."""

    def names(paths):
        return sorted(path.relative_to(folder).as_posix() for path in paths)

    with (folder / "a.txt").open(encoding="utf-8") as lines:
        read = list(lines)
    with (folder / "sub" / "b.bin").open("rb") as content:
        content.seek(4)
        part = content.read(3)
    return {
        "top": names(folder.iterdir()),
        "pattern": names(folder.glob("*/b.*")),
        "below": names(path for path in folder.rglob("*") if path.is_file()),
        "kinds": [(folder / name).is_dir() for name in ("", "sub", "a.txt", "none")],
        "exist": [(folder / name).exists() for name in ("", "sub", "a.txt", "none")],
        "files": [(folder / name).is_file() for name in ("sub", "a.txt", "none")],
        "size": (folder / "sub" / "b.bin").stat().st_size,
        "text": (folder / "a.txt").read_text(encoding="utf-8"),
        "lines": read,
        "part": part,
    }


def test_a_bucket_looks_like_a_disk(folder, tmp_path):
    tree(folder)
    tree(tmp_path / "x")
    assert seen(folder) == seen(tmp_path / "x")
    for where in (folder, tmp_path / "x"):
        with pytest.raises(FileNotFoundError):
            (where / "none").read_bytes()
        with pytest.raises(FileNotFoundError):
            (where / "none").unlink()
        (where / "none").unlink(missing_ok=True)
        (where / "sub").rename(where / "moved")
        (where / "a.txt").replace(where / "moved" / "b.bin")
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*")) == sorted(
        p.relative_to(tmp_path / "x").as_posix() for p in (tmp_path / "x").rglob("*") if p.is_file()
    )
    (folder / "odd[1]*").mkdir()
    tree(folder / "odd[1]*")  # No patterns.
    (folder / "odd[1]*").rename(folder / "o?d")
    assert not (folder / "odd[1]*").exists() and seen(folder / "o?d")["below"]
    places.remove_tree(folder)
    assert not folder.exists() and list(folder.iterdir()) == []


def test_a_tree_is_copied_between_both(folder, tmp_path):
    tree(tmp_path / "x")
    places.copy_tree(tmp_path / "x", folder / "up")
    places.copy_tree(folder / "up", folder / "again")
    places.copy_tree(folder / "again", tmp_path / "down")
    assert seen(tmp_path / "down") == seen(tmp_path / "x")
    with copies.local_copy(folder / "up") as copy:
        assert seen(copy) == seen(tmp_path / "x")


def test_a_fetched_copy_is_used_until_the_object_changes(cloud, folder):
    path = folder / "a.bin"
    path.write_bytes(b"1")
    first = places.fetched(path)
    before = cloud.requests.counts.copy()
    assert places.fetched(path) == first and first.read_bytes() == b"1"
    assert cloud.requests.since(before) == {"look up": 1}
    path.write_bytes(b"2")
    assert places.fetched(path).read_bytes() == b"2"
    with pytest.raises(FileNotFoundError):
        places.fetched(folder / "none")


def test_a_bucket_that_is_missing_is_named(cloud):
    with pytest.raises(UsageError, match="there is no bucket 'missing'"):
        place("gs://missing/a").write_bytes(b"1")
    assert not place("gs://missing/a").exists()


# gcsfs gives aiohttp whole bodies of up to 5 MiB, and aiohttp warns above 1 MiB.
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
def test_the_doctor_writes_an_object_and_leaves_nothing(folder):
    said = health.workdir(folder)
    assert said.startswith(f"{folder}: writes ") and said.endswith(" MB/s")
    assert not folder.exists()
