"""Tensor files are recognised by their content; damage, code and other files are refused."""

import argparse
import os
import pickle
import re
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests import processes
from vlbeit_jax.convert.read_tensors import read_tensors
from vlbeit_jax.errors import UsageError


def some_tensors():
    drawn = torch.Generator().manual_seed(0)
    return {
        "a": torch.randn(30, 70, generator=drawn),
        "s": torch.tensor(2.0),
        "ids": torch.arange(6)[None],
    }


def pytorch_file(path, wrapper=None, zipped=True):
    named = (
        {f"module.{name}": value for name, value in some_tensors().items()}
        if wrapper
        else some_tensors()
    )
    torch.save(
        {wrapper: named, "epoch": 3} if wrapper else named,
        path,
        _use_new_zipfile_serialization=zipped,
    )
    return path


def assert_holds(path, wanted):
    file = read_tensors(path)
    assert file.shapes == {name: tuple(value.shape) for name, value in wanted.items()}
    for name, value in wanted.items():
        assert file.tensors[name].dtype == np.float32
        np.testing.assert_array_equal(file.tensors[name], value.detach().float().numpy())


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrapper", [None, "model", "state_dict", "module"])
def test_pytorch_files_are_read_out_of_their_wrappers(tmp_path, wrapper, zipped):
    assert_holds(pytorch_file(tmp_path / "x.pth", wrapper, zipped), some_tensors())


@pytest.mark.parametrize("name", ["x.safetensors", "x.bin"])
def test_every_type_of_safetensors_is_read_under_any_name(tmp_path, name):
    types = (
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.float8_e4m3fn,
        torch.float8_e5m2,
        torch.int32,
        torch.uint8,
        torch.bool,
    )
    tensors = some_tensors() | {str(dtype): (3 * torch.rand(2, 5)).to(dtype) for dtype in types}
    save_file(tensors, tmp_path / name, {"note": "said"})
    assert_holds(tmp_path / name, tensors)
    assert read_tensors(tmp_path / name).metadata == {"note": "said"}


def test_a_header_whose_length_begins_like_a_pickle_is_none(tmp_path):
    """A length of 128, 384, ... has the first byte of a pickle."""
    path, started = tmp_path / "x.safetensors", set()
    for length in range(0, 256, 8):
        save_file({"a": torch.ones(2)}, path, {"note": "x" * length})
        started.add(path.read_bytes()[0])
        assert_holds(path, {"a": torch.ones(2)})
    assert 0x80 in started


def test_parameters_and_narrow_types_of_pytorch_are_read(tmp_path):
    tensors = {
        "weight": torch.nn.Parameter(torch.randn(2, 3)),
        "half": torch.randn(4).half(),
        "bf16": torch.randn(4).bfloat16(),
    }
    torch.save(tensors | {7: torch.ones(1), "step": 3}, tmp_path / "x.pth")
    assert_holds(tmp_path / "x.pth", tensors)


class Settings(argparse.Namespace):
    """More than a namespace: a class of another program."""


def run_way_out(refused):
    """Runs the command that a refusal proposes, with the classes of this file at hand."""
    code = re.search(r'python -c "(.*)"$', str(refused.value))[1]
    code = f"import tests.convert.test_read_tensors; {code}"
    return processes.begin("-c", code, environment=os.environ).ended()


class Hostile:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return eval, ("__import__('pathlib').Path('hacked').touch()",)


@pytest.mark.parametrize("how", ["torch", 2, 4])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, monkeypatch, how):
    """PyTorch must not warn before our message, as it does for pickles of other protocols."""
    monkeypatch.chdir(tmp_path)
    if how == "torch":
        torch.save({"model": Hostile()}, "x.pth")
    else:
        (tmp_path / "x.pth").write_bytes(pickle.dumps(Hostile(), protocol=how))
    with pytest.raises(UsageError, match="x.pth: (refused|cannot be read)"):
        read_tensors(tmp_path / "x.pth")
    assert not (tmp_path / "hacked").exists()


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)
@pytest.mark.parametrize(
    "kind",
    [
        "checkpoint",
        "module",
        *(pytest.param(each, marks=pytest.mark.slow) for each in ("wrapped module", "torchscript")),
    ],
)
def test_the_way_out_for_more_than_tensors_works_as_printed(tmp_path, kind):
    module, path = torch.nn.Linear(2, 3), tmp_path / "x.pth"
    if kind == "torchscript":  # As OpenAI publishes CLIP.
        torch.jit.script(module).save(str(path))
    else:
        optimizer = torch.optim.Adam(module.parameters())
        checkpoint = {"model": module.state_dict(), "optimizer": optimizer, "args": Settings(lr=1)}
        torch.save(
            {"checkpoint": checkpoint, "module": module, "wrapped module": {"state_dict": module}}[
                kind
            ],
            path,
        )
    before = path.read_bytes()
    with pytest.raises(UsageError, match="x.pth: refused") as refused:
        read_tensors(path)
    assert "two options" not in str(refused.value) and str(refused.value).count("weights_only") == (
        kind != "torchscript"
    )
    done = run_way_out(refused)
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == before
    assert_holds(tmp_path / "x.tensors.pth", dict(module.named_parameters()))


def test_the_way_out_keeps_the_keys_that_a_format_chooses_by(tmp_path):
    """DINO's layout, with arguments that are more than a namespace."""
    teacher, moments = some_tensors(), {"state": {0: {"exp_avg": torch.ones(9)}}}
    student = {f"module.{name}": value + 1 for name, value in teacher.items()}
    content = {"student": student, "teacher": teacher, "optimizer": moments, "args": Settings()}
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(UsageError, match="x.pth: refused") as refused:
        read_tensors(tmp_path / "x.pth")
    done = run_way_out(refused)
    assert done.returncode == 0, done.stderr
    file = read_tensors(tmp_path / "x.tensors.pth", parts=("teacher",))
    assert file.tensors.keys() == teacher.keys()
    np.testing.assert_array_equal(file.tensors["a"], teacher["a"].numpy())
    assert file.notes == ("teacher is read; the file's other parts are not: student",)


def test_the_way_out_says_so_if_there_are_no_tensors(tmp_path):
    """It must not leave an empty file behind."""
    torch.save({"args": Settings(lr=1), "losses": [torch.ones(1)]}, tmp_path / "x.pth")
    with pytest.raises(UsageError, match="x.pth: refused") as refused:
        read_tensors(tmp_path / "x.pth")
    done = run_way_out(refused)
    assert done.returncode == 1 and done.stderr == "it holds no tensors under names\n"
    assert not (tmp_path / "x.tensors.pth").exists()


def test_arguments_of_the_command_may_stand_beside_the_tensors(tmp_path):
    """A namespace of plain values runs nothing; any other class in it is refused."""
    arguments = argparse.Namespace(lr=1.5, imagenet=True, betas=[0.9, 0.98], model="base")
    torch.save({"model": some_tensors(), "args": arguments, "epoch": 3}, tmp_path / "x.pth")
    assert_holds(tmp_path / "x.pth", some_tensors())
    file = read_tensors(tmp_path / "x.pth")
    assert file.metadata == {"args.lr": "1.5", "args.imagenet": "True", "args.model": "base"}
    assert file.notes == ("model is read; the file's other parts are not: args, epoch",)
    arguments.out = tmp_path
    torch.save({"model": some_tensors(), "args": arguments}, tmp_path / "x.pth")
    with pytest.raises(UsageError, match="x.pth: refused"):
        read_tensors(tmp_path / "x.pth")


def test_a_format_chooses_among_the_networks_of_a_file(tmp_path):
    other = {name: value + 1 for name, value in some_tensors().items()}
    torch.save({"student": other, "teacher": some_tensors()}, tmp_path / "x.pth")
    read = read_tensors(tmp_path / "x.pth", parts=("teacher",))
    np.testing.assert_array_equal(read.tensors["a"], some_tensors()["a"].numpy())
    with pytest.raises(UsageError, match="no named tensors .* at the top; it has student, teacher"):
        read_tensors(tmp_path / "x.pth")


@pytest.mark.parametrize("name", ["x.safetensors", "x.pth"])
@pytest.mark.parametrize("kept", [0, 5, 100, 0.5, 0.99])
def test_cut_off_files_are_refused(tmp_path, name, kept):
    path = tmp_path / name
    if path.suffix == ".pth":
        pytorch_file(path, "model")
    else:
        save_file(some_tensors(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: kept if isinstance(kept, int) else int(len(whole) * kept)])
    with pytest.raises(UsageError, match=f"{name}: .*cut off"):
        read_tensors(path)


def test_a_flipped_bit_in_an_archive_is_found(tmp_path):
    path = pytorch_file(tmp_path / "x.pth")
    content = bytearray(path.read_bytes())
    content[content.index(some_tensors()["a"].numpy().tobytes()) + 5] ^= 1
    path.write_bytes(content)
    with pytest.raises(UsageError, match="x.pth is damaged: .*checksum"):
        read_tensors(path)


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<!DOCTYPE html>\n<html>" + bytes(100), "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull"),
        (b"\x93NUMPY\x01\x00v\x00" + bytes(100), "a NumPy array"),
        (b"access denied, please log in\n", "but text"),
        (bytes(range(100, 200)), "nor a PyTorch file$"),
    ],
    ids=["html", "lfs", "npy", "text", "bytes"],
)
def test_what_is_no_tensor_file_is_called_that(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=f"{name}: neither.*{said}"):
        read_tensors(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([torch.ones(1)], "holds a list"),
        (torch.ones(1), "holds a Tensor"),
        (None, "holds a NoneType"),
        ({3: torch.ones(1)}, "holds no named tensors"),
        ({"epoch": 3}, "holds no named tensors"),
    ],
    ids=str,
)
def test_what_holds_no_named_tensors_is_refused(tmp_path, content, said):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(UsageError, match=said):
        read_tensors(tmp_path / "x.pth")


def test_other_places_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        read_tensors(tmp_path / "none.pth")
    with pytest.raises(UsageError, match="is a folder; name the file in it"):
        read_tensors(tmp_path)
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("a.npy", b"1")
    with pytest.raises(UsageError, match="a zip archive, but not a PyTorch file"):
        read_tensors(tmp_path / "x.pth")
