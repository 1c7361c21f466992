"""Captions in PyTorch: those of JAX in every form of the network, by greedy choice and by beams."""

import numpy as np
import pytest
import torch

from tests.convert.finetuned_runs import ROWS, sets_in, task_of, write_run
from vlbeit_jax.config.common import MeshConfig
from vlbeit_jax.convert import verify
from vlbeit_jax.convert.files import write_manifest
from vlbeit_jax.convert.finetuned import read_finetuned
from vlbeit_jax.convert.formats import torch_finetuned
from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.examples.paired import WholeImage
from vlbeit_jax.data.source import open_set
from vlbeit_jax.training.mesh import make_mesh

BEIT3 = {"decoupled": True, "sub_norm": True, "layer_scale": 0.0, "fused_layers": 0}
# By name: settings of the model, and of the search.
FORMS = {
    "ours": ({}, {"beams": 3}),
    "relative": ({"positions": "relative"}, {"beams": 1}),
    "BEiT-3's": (BEIT3, {"beams": 2, "length_penalty": 0.0}),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return sets_in(tmp_path_factory.mktemp("sets") / "own")["captioning"]


@pytest.fixture(scope="module")
def source_of(data, world, tmp_path_factory):
    """From the name of a form to its run, written once."""
    folder, found = tmp_path_factory.mktemp("runs"), {}

    def source(form):
        if form not in found:
            model, search = FORMS[form]
            task = task_of("captioning", data, world.text_tokenizer, model=model, **search)
            found[form] = read_finetuned(write_run(folder / str(len(found)), task), "raw")
        return found[form]

    return source


def exported(source, out):
    out.mkdir()
    torch_finetuned.write(source, out)
    write_manifest(out)
    return out


def module_in(out):
    with verify.importable(out):
        return verify.module_of(out / "vlbeit_finetuned.py")


@pytest.mark.parametrize("form", FORMS)
def test_captions_are_those_of_jax(source_of, data, tmp_path, form):
    source = source_of(form)
    out = exported(source, tmp_path / "out")
    records = open_set(str(data)).records("test")
    expected = [line["caption"] for line in source.run.predict(records, 1, make_mesh(MeshConfig()))]
    module = module_in(out)
    view = WholeImage(32)
    image = np.stack([view(records[n], Draws("unused"))["image"] for n in range(len(records))])
    pixels = module.normalise(torch.from_numpy(image).permute(0, 3, 1, 2))
    rows = module.load(out).caption(pixels)
    found = [source.opened.text.decode(row) for row in rows.tolist()]
    assert found == expected and len(found) == ROWS * 2 // 3
    assert len(set(found)) > 3 and rows.shape[1] == 12
    # Each image is captioned for itself.
    alone = module.load(out).caption(pixels[4:5])
    assert torch.equal(alone[0], rows[4])
    found = torch_finetuned.check(source, out)
    assert found.summary()["max_abs"] < 5e-6


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("seen[images:, images:].tril()", "seen[images:, images:]"),
        ("seen[:images, images:] = False", "pass"),
    ],
)
def test_another_mask_is_told_apart(source_of, tmp_path, before, after):
    source = source_of("ours")
    out = exported(source, tmp_path / "out")
    text = (out / "vlbeit_captions.py").read_text()
    assert before in text
    (out / "vlbeit_captions.py").write_text(text.replace(before, after))
    assert torch_finetuned.check(source, out).summary()["max_abs"] > 1e-4
