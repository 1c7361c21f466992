"""Prefixes of wrappers are taken off in every type of file, and the report says so."""

import pytest
import torch
from safetensors.torch import save_file

from tests.convert import test_beit
from vlbeit_jax.convert.formats import IMPORTS
from vlbeit_jax.convert.import_options import ImportOptions
from vlbeit_jax.convert.prefixes import short_names
from vlbeit_jax.convert.read_tensors import read_tensors
from vlbeit_jax.convert.source import read_run
from vlbeit_jax.errors import UsageError

PLAIN = ["cls_token", "blocks.0.norm1.weight"]


@pytest.mark.parametrize(
    ("prefix", "notes"),
    [
        ("", []),
        ("module.", ["module."]),
        ("_orig_mod.", ["_orig_mod."]),
        ("model.", ["model."]),
        ("module._orig_mod.", ["module.", "_orig_mod."]),
        ("_orig_mod.module.", ["_orig_mod.", "module."]),
        ("model._orig_mod.", ["model.", "_orig_mod."]),
        ("module.module.", ["module."]),
    ],
)
def test_prefixes_are_taken_off_in_any_order(prefix, notes):
    short, said = short_names([prefix + name for name in PLAIN])
    assert short == {name: prefix + name for name in PLAIN}
    assert said == tuple(f"the prefix {each} was taken off 2 of 2 names" for each in notes)


def test_blocks_that_were_compiled_one_by_one_have_their_own_names():
    short, notes = short_names(["cls_token", "blocks.0._orig_mod.norm1.weight"])
    assert list(short) == PLAIN
    assert notes == ("the part ._orig_mod. was taken out of 1 of 2 names",)


def test_a_format_has_prefixes_of_its_own():
    names = ["backbone.cls_token", "module.backbone.norm.weight", "head.bias"]
    assert list(short_names(names, ("backbone.",))[0]) == ["cls_token", "norm.weight", "head.bias"]
    assert "backbone.cls_token" in short_names(names)[0]


def test_names_that_begin_alike_are_left_alone():
    """Only whole parts are prefixes."""
    names = ["models.a", "modules.b", "model_ema.c", "submodule.d", "encoder.model.e"]
    assert short_names(names) == ({name: name for name in names}, ())


def test_two_networks_in_one_file_are_refused():
    with pytest.raises(UsageError, match=r"both cls_token and module\.cls_token"):
        short_names(["cls_token", "module.cls_token"])


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "model._orig_mod."])
def test_every_type_of_file_loses_its_prefixes(tmp_path, prefix, suffix):
    tensors = test_beit.published(fine_tuned=False)
    file = read_tensors(written(tmp_path / f"x.{suffix}", tensors, prefix))
    assert file.shapes == {name: value.shape for name, value in tensors.items()}
    assert all((file.tensors[name] == value).all() for name, value in tensors.items())
    assert len(file.notes) == prefix.count(".")


def written(path, tensors, prefix):
    named = {prefix + name: torch.tensor(value) for name, value in tensors.items()}
    if path.suffix == ".pth":
        torch.save(named, path)
    else:
        save_file(named, path)
    return path


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_the_import_says_what_was_taken_off(tmp_path, suffix):
    tensors = test_beit.published(fine_tuned=False)
    path = written(tmp_path / f"beit.{suffix}", tensors, "module.")
    options = ImportOptions(vocabulary=300, text_positions=16)
    report = IMPORTS["beit"].run(path, options, tmp_path / "run")
    count = len(tensors)
    note = f"note     the prefix module. was taken off {count} of {count} names"
    assert str(report).splitlines()[0] == note
    assert note in (tmp_path / "run" / "import.txt").read_text()
    cls = read_run(tmp_path / "run").params["vision_embed/cls"]
    assert (cls == tensors["cls_token"].reshape(-1)).all()
