"""ONNX graphs in onnxruntime: the same outputs as JAX, for any number of rows and word pieces."""

import dataclasses
import importlib.util
import json
from typing import Any

import numpy as np
import pytest
import sentencepiece

import vlbeit_jax
from tests import tiny
from tests.convert.conftest import small_run
from tests.convert.finetuned_runs import sets_in, task_of, write_run
from vlbeit_jax.convert.finetuned import read_finetuned
from vlbeit_jax.convert.formats import onnx_graphs, onnx_run, torch_module
from vlbeit_jax.convert.source import read_run
from vlbeit_jax.folders import SAMPLE_FOLDER

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "onnx", "onnxruntime")),
    reason="PyTorch and ONNX are not installed",
)


@pytest.fixture(scope="module")
def relative(tmp_path_factory):
    """A run with random parameters, its graphs and what the command has printed."""
    folder = tmp_path_factory.mktemp("onnx")
    run, out = small_run(folder / "run", positions="relative"), folder / "out"
    done = tiny.command(
        "vlbeit_jax.convert", f"--from={run.folder}", "--to=onnx", f"--out={out}", "--verify"
    )
    assert done.returncode == 0, done.stderr
    return run, out, done


def test_graphs_agree_with_jax_on_other_rows_and_lengths(relative):
    _, out, done = relative
    found = json.loads((out / "verify.json").read_text())
    cases = {name.split("/")[0] for name in found["cases"]}
    assert cases == {"image", "text", "pair", "pair_of_one_row"}
    assert found["max_abs"] < 1e-5
    assert "against ONNX graphs in onnxruntime" in done.stdout and "pair/text_mean" in done.stdout
    assert "Warning" not in done.stderr and "torchvision" not in done.stderr


def test_other_parameters_are_told_apart(relative):
    """The control: one bias differs by 0.1%."""
    run, out, _ = relative
    name = "encoder/block_1/vision/up/bias"
    other = dataclasses.replace(run, params=run.params | {name: run.params[name] * 1.001})
    assert onnx_run.check_run(other, out).summary()["max_abs"] > 1e-5


def test_the_configuration_lists_inputs_and_outputs(relative):
    _, out, _ = relative
    graphs = json.loads((out / "config.json").read_text())["graphs"]
    assert graphs["pair.onnx"]["inputs"] == {
        "pixels": ["UINT8", "rows", 3, 32, 32],
        "pieces": ["INT64", "rows", "length"],
    }
    assert graphs["text.onnx"]["outputs"]["text_mean"] == ["FLOAT", "rows", 32]
    assert "pair.onnx" in (out / "README.md").read_text()


def card_code(folder):
    """The code of a model card."""
    return (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]


def test_the_code_of_the_card_of_an_import_names_no_numbers_that_nobody_knows(relative):
    """The run of this fixture has no text tokenizer, as an import."""
    _, out, _ = relative
    config, code = json.loads((out / "config.json").read_text()), card_code(out)
    assert config["specials"] is None
    assert "CLS, SEP = ..., ...\n" in code and "[[2, 17" not in code
    assert f"padded with {config['model']['pad']}." in code
    known = code.replace("CLS, SEP = ..., ...", "CLS, SEP = 101, 102")
    compile(known, "README.md", "exec")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "graphs"),
    [
        ("vqa", {"logits"}),
        ("visual_reasoning", {"logits"}),
        ("retrieval", {"image_vector", "text_vector", "match"}),
    ],
)
def test_every_output_of_a_fine_tuned_model_is_a_graph(world, tmp_path, monkeypatch, name, graphs):
    sets = sets_in(tmp_path / "own")
    changes = {"matching": True, "features": 24} if name == "retrieval" else {}
    task = task_of(name, sets[name], world.text_tokenizer, **changes)
    source = read_finetuned(write_run(tmp_path / "run", task), "raw")
    out = tmp_path / "out"
    out.mkdir()
    onnx_graphs.write_finetuned(source, out)
    assert {path.stem for path in out.glob("*.onnx")} == graphs
    assert onnx_run.check_finetuned(source, out).summary()["max_abs"] < 1e-5
    # The control: averaged parameters are others.
    averaged = read_finetuned(tmp_path / "run", "ema")
    assert onnx_run.check_finetuned(averaged, out).summary()["max_abs"] > 1e-2
    # The card's code runs as it stands, with the numbers of this text tokenizer.
    code = card_code(out)
    assert "pieces = numpy.array([[2, 17, 25, 3]])  # CLS 2, word pieces, SEP 3, padded" in code
    monkeypatch.chdir(out)
    found: dict[str, Any] = {}
    exec(code, found)
    assert all(np.isfinite(found[name]).all() and len(found[name]) == 1 for name in graphs)


def as_pieces(texts):
    """Word pieces as docs/convert.md makes them, padded to the longest text."""
    file = SAMPLE_FOLDER / "text_tokenizer" / "sentencepiece.model"
    processor = sentencepiece.SentencePieceProcessor(model_file=str(file))
    rows = [[2, *processor.encode(text), 3] for text in texts]
    longest = max(map(len, rows))
    return np.array([row + [0] * (longest - len(row)) for row in rows])


@pytest.mark.parametrize(
    "graphs",
    # Small graphs of every kind are above.
    [("text",), pytest.param(("image", "text"), marks=pytest.mark.slow)],
    ids="+".join,
)
def test_features_of_the_sample_are_the_same_in_jax_pytorch_and_onnx(tmp_path, graphs):
    """Means and states of pictures and of texts with padding; the sample's real weights."""
    import torch

    model, run = vlbeit_jax.load("sample"), read_run(SAMPLE_FOLDER)
    pictures = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    texts = ["a cat on a mat", "sun", "the union of these states, and its people"]
    wanted = model.encode(list(pictures), texts)
    pieces = as_pieces(texts)
    module, network = torch_module.as_module(run)
    with torch.inference_mode():
        pixels = module.normalise(torch.from_numpy(pictures).permute(0, 3, 1, 2))
        found = network(image=pixels) | network(text=torch.from_numpy(pieces).long())
    batch = {"image": pictures, "text": pieces}
    for name in graphs:
        graph = onnx_run.Graph(f"{name}.onnx", (name,))
        onnx_graphs.export_graph(
            module, network, graph, torch_module.model_config(run.model), tmp_path
        )
    onnx = {}
    for name in graphs:
        onnx |= onnx_run.run_graph(tmp_path, f"{name}.onnx", {name: batch[name]})
    assert {name.split("_")[0] for name in onnx} == set(graphs)
    is_state = (pieces != 0)[:, 1:]
    assert not is_state.all()
    both = {
        "image_mean": wanted.image,
        "image_cls": wanted.image_cls,
        "image": wanted.patches,
        "text_mean": wanted.text,
        "text_cls": wanted.text_cls,
        "text": wanted.words[:, 1 : pieces.shape[1]],
    }
    for name, value in both.items():
        valid = is_state if name == "text" else ...
        others = [found[name].numpy(), *([onnx[name]] if name in onnx else [])]
        for other in others:
            np.testing.assert_allclose(other[valid], value[valid], atol=1e-5, rtol=0, err_msg=name)
    # The control: the mean over padding too is another vector.
    assert np.abs(both["text"].mean(axis=1) - wanted.text).max() > 1e-2


def test_a_package_that_is_missing_is_named_before_anything_else(tmp_path, monkeypatch):
    from vlbeit_jax.convert import __main__ as command
    from vlbeit_jax.errors import UsageError

    monkeypatch.setattr(command.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="--to=onnx needs onnx and onnxscript: .*pip install onnx"):
        command._require_packages("--to=onnx", ("onnx", "onnxscript"))
