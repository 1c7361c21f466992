"""Tensor files: written as a stream, read tensor by tensor; damage and code are refused in one line."""

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from vlbeit_jax.convert import files
from vlbeit_jax.convert.files import check_manifest, open_tensors, write_manifest, write_safetensors
from vlbeit_jax.convert.rules import Written
from vlbeit_jax.errors import UsageError


def some_arrays():
    rng = np.random.default_rng(0)
    arrays = {"a": rng.standard_normal((70, 30), np.float32).T, "b": rng.standard_normal(5, np.float32), "s": np.float32(2).reshape(())}
    return arrays | {"big": rng.standard_normal((300, 7, 11), np.float32).transpose(1, 2, 0), "ids": np.arange(6).reshape(1, 6)}


@pytest.mark.parametrize("chunk", [1, 1000, 2**24])
def test_what_is_written_is_what_the_library_reads(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(files, "CHUNK", chunk)
    arrays = some_arrays()
    stream = [Written(name, value.shape, value.dtype, lambda value=value: value) for name, value in arrays.items()]
    write_safetensors(tmp_path / "x.safetensors", iter(stream), {"format": "pt"})
    found = load_file(tmp_path / "x.safetensors")
    assert found.keys() == arrays.keys()
    for name, value in arrays.items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype


def pytorch_file(path, wrapper, zipped=True):
    tensors = {name: torch.from_numpy(np.array(value, order="C")) for name, value in some_arrays().items()}
    torch.save(
        {wrapper: {f"module.{name}": value for name, value in tensors.items()}, "epoch": 3} if wrapper else tensors,
        path,
        _use_new_zipfile_serialization=zipped,
    )
    return path


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrapper", [None, "model", "state_dict", "module"])
def test_pytorch_files_are_read_out_of_their_wrappers(tmp_path, wrapper, zipped):
    found = open_tensors(pytorch_file(tmp_path / "x.pth", wrapper, zipped))
    for name, value in some_arrays().items():
        assert found.shapes[name] == value.shape
        np.testing.assert_array_equal(found[name], value)


class Hostile:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return eval, ("__import__('pathlib').Path('hacked').touch()",)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    if how == "torch":
        torch.save({"model": Hostile()}, "x.pth")
    else:
        (tmp_path / "x.pth").write_bytes(pickle.dumps(Hostile(), protocol=2))
    with pytest.raises(UsageError, match="x.pth: (refused|cannot be read)"):
        open_tensors(tmp_path / "x.pth")
    assert not (tmp_path / "hacked").exists()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_torchscript_archives_are_refused_with_what_to_do(tmp_path):
    """OpenAI publishes CLIP as such."""
    torch.jit.script(torch.nn.Linear(2, 3)).save(str(tmp_path / "x.pt"))
    with pytest.raises(UsageError, match="torch.jit.load"):
        open_tensors(tmp_path / "x.pt")


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
@pytest.mark.parametrize("kept", [0, 5, 100, 0.5, 0.99])
def test_cut_off_files_are_refused(tmp_path, name, kept):
    path = tmp_path / name
    if path.suffix == ".pth":
        pytorch_file(path, "model")
    else:
        save_file({name: np.array(value, order="C") for name, value in some_arrays().items()}, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if isinstance(kept, int) else int(len(whole) * kept)])
    with pytest.raises(UsageError, match=f"{name}: .*cut off"):
        open_tensors(path)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        open_tensors(tmp_path / "none.pth")
    torch.save({"epoch": 3}, tmp_path / "x.pth")
    with pytest.raises(UsageError, match="holds no tensors"):
        open_tensors(tmp_path / "x.pth")


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
    check_manifest(folder)


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "manifest"])
def test_damage_is_named(tmp_path, damage):
    folder = folder_with_manifest(tmp_path)
    path = folder / "a.bin"
    if damage == "flip":
        path.write_bytes(bytes(500) + b"\x01" + bytes(499))
    elif damage == "cut":
        path.write_bytes(bytes(999))
    elif damage == "gone":
        path.unlink()
    else:
        (folder / "manifest.json").write_text("{")
    if damage != "manifest":
        check_manifest(folder, "inner/b.bin")
    with pytest.raises(UsageError, match={"flip": "a.bin has changed", "cut": "999 bytes", "gone": "missing"}.get(damage, "manifest")):
        check_manifest(folder)
