"""Segmentation in PyTorch: the same logits with both norms, and the same mIoU."""

import importlib.util

import numpy as np
import pytest
import torch

from tests.convert.finetuned_runs import sets_in, task_of, write_run
from vlbeit_jax.convert import verify
from vlbeit_jax.convert.files import write_manifest
from vlbeit_jax.convert.finetuned import (
    jax_outputs,
    random_inputs,
    read_finetuned,
    write_evaluation,
)
from vlbeit_jax.convert.formats import onnx_graphs, onnx_run, torch_finetuned

FORMS = {
    "group": {"model": {"depth": 1, "fused_layers": 0}},
    "batch": {
        "norm": "batch",
        "view": "slide",
        "taps": (1, 0, 0, 1),
        "model": {"positions": "relative", "patch_size": 4},
    },
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return sets_in(tmp_path_factory.mktemp("sets") / "own")["segmentation"]


@pytest.fixture(scope="module")
def source_of(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    runs = {
        name: write_run(folder / name, task_of("segmentation", data, "", **form))
        for name, form in FORMS.items()
    }
    return lambda name: read_finetuned(runs[name], "raw")


@pytest.mark.parametrize("name", [pytest.param("group", marks=pytest.mark.slow), "batch"])
def test_both_sides_agree_and_pytorch_repeats_the_figures(source_of, data, tmp_path, name):
    source = source_of(name)
    write_evaluation(source, [str(data)], "test", tmp_path)
    torch_finetuned.write(source, tmp_path)
    write_manifest(tmp_path)
    found = torch_finetuned.check(source, tmp_path)
    assert [*found.cases] == ["logits"] and found.summary()["max_abs"] < 1e-4
    with verify.importable(tmp_path), torch.inference_mode():
        module = verify.module_of(tmp_path / "evaluate.py")
        figures, ours = module.evaluate(5)
        model = module.load(tmp_path)
        image = module.prepared("image", torch.from_numpy(random_inputs(source.model)["image"]))
        assert model.segment(image).shape == image.shape[::2] + image.shape[3:]
        logits = model(image)
    expected = {each: ours["metrics"][each] for each in figures}
    assert figures == pytest.approx(expected, abs=1e-3) and len(figures) == 6
    assert 0.05 < figures["miou"] < 0.6
    assert float(logits.std()) > 0.1


def test_other_statistics_are_told_apart(source_of, tmp_path):
    """A control: the mean of one BatchNorm is moved."""
    source = source_of("batch")
    _, model = torch_finetuned.as_module(source)
    batch = random_inputs(source.model)
    image = torch.from_numpy(np.ascontiguousarray(batch["image"])).permute(0, 3, 1, 2)
    image = image.float() / 127.5 - 1
    expected = jax_outputs(source, batch)["logits"]
    with torch.inference_mode():
        same = model(image).permute(0, 2, 3, 1).numpy()
        model.head.fuse.norm.running_mean += 0.5
        moved = model(image).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(same, expected, atol=1e-4)
    assert np.abs(moved - expected).max() > 1e-2


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxruntime")),
    reason="ONNX is not installed",
)
def test_its_onnx_graph_has_the_logits_of_jax(source_of, tmp_path, monkeypatch):
    """With BatchNorm, whose moments are part of the graph, and the taps of another scale."""
    source = source_of("batch")
    onnx_graphs.write_finetuned(source, tmp_path)
    found = onnx_run.check_finetuned(source, tmp_path)
    assert [*found.cases] == ["logits"] and found.summary()["max_abs"] < 1e-4
    # The control: averaged parameters are others.
    averaged = read_finetuned(source.run.folder, "ema")
    assert onnx_run.check_finetuned(averaged, tmp_path).summary()["max_abs"] > 1e-2
    code = (tmp_path / "README.md").read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    run: dict[str, np.ndarray] = {}
    exec(code, run)
    assert np.isfinite(run["logits"]).all() and len(run["logits"]) == 1
