"""Safetensors files hold what was given; a manifest reveals damage."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from vlbeit_jax.convert.files import check_manifest, write_manifest, write_safetensors
from vlbeit_jax.errors import UsageError


def some_arrays():
    rng = np.random.default_rng(0)
    arrays = {
        "a": rng.standard_normal((70, 30), np.float32).T,
        "b": rng.standard_normal(5, np.float32),
        "s": np.float32(2).reshape(()),
    }
    return arrays | {
        "big": rng.standard_normal((300, 7, 11), np.float32).transpose(1, 2, 0),
        "ids": np.arange(6).reshape(1, 6),
    }


def test_the_library_reads_what_is_written(tmp_path):
    arrays = some_arrays()
    write_safetensors(tmp_path / "x.safetensors", arrays, {"format": "pt"})
    loaded = load_file(tmp_path / "x.safetensors")
    assert loaded.keys() == arrays.keys()
    for name, value in arrays.items():
        np.testing.assert_array_equal(loaded[name], value)
        assert loaded[name].dtype == value.dtype


def folder_with_manifest(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "a.bin").write_bytes(bytes(1000))
    (tmp_path / "inner" / "b.bin").write_bytes(b"text")
    write_manifest(tmp_path)
    return tmp_path


def test_a_manifest_knows_size_and_hash_of_every_file(tmp_path):
    folder = folder_with_manifest(tmp_path)
    said = json.loads((folder / "manifest.json").read_text())
    assert said.keys() == {"a.bin", "inner/b.bin"} and said["inner/b.bin"]["bytes"] == 4
    check_manifest(folder / "a.bin")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (bytes(500) + b"\x01" + bytes(499), "a.bin has changed"),
        (bytes(999), "999 bytes, but manifest.json lists 1000"),
    ],
)
def test_damage_is_named(tmp_path, content, said):
    folder = folder_with_manifest(tmp_path)
    (folder / "a.bin").write_bytes(content)
    with pytest.raises(UsageError, match=said):
        check_manifest(folder / "a.bin")


@pytest.mark.parametrize(
    "content",
    ["{", "[]", '{"short_name": "an app"}', '{"a.bin": 3}', '{"a.bin": {"bytes": 1000}}', None],
)
def test_manifests_of_other_programs_say_nothing(tmp_path, content):
    (tmp_path / "a.bin").write_bytes(bytes(999))
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    check_manifest(tmp_path / "a.bin")
