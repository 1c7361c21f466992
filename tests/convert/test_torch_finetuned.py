"""Fine-tuned models in PyTorch: the same outputs and figures, and changes that are told apart."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from tests import tiny
from tests.convert.finetuned_runs import sets_in, task_of, write_run
from vlbeit_jax.convert import finetuned, verify
from vlbeit_jax.convert.files import write_manifest
from vlbeit_jax.convert.finetuned import jax_outputs, read_finetuned
from vlbeit_jax.convert.formats import torch_finetuned
from vlbeit_jax.errors import UsageError
from vlbeit_jax.objectives.base import Variables
from vlbeit_jax.training.sealed import with_seal

RELATIVE = {"positions": "relative"}
# By name: a task, its settings, and how many outputs are compared.
FORMS = {
    "images": ("image_classification", {}, 1),
    "texts": ("text_classification", {}, 1),
    "texts, mean, relative": ("text_classification", {"pool": "mean", "model": RELATIVE}, 1),
    "answers": ("vqa", {}, 1),
    "statements": ("visual_reasoning", {}, 1),
    "statements, relative": ("visual_reasoning", {"model": RELATIVE}, 1),
    "retrieval": ("retrieval", {"matching": True, "rerank": 4, "features": 24}, 3),
}
OF_TASK = {
    "image_classification": "images",
    "text_classification": "texts, mean, relative",
    "vqa": "answers",
    "visual_reasoning": "statements",
    "retrieval": "retrieval",
}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    return sets_in(tmp_path_factory.mktemp("sets") / "own")


@pytest.fixture(scope="module")
def source_of(sets, world, tmp_path_factory):
    """From the name of a form and of weights to its run, written once."""
    folder, runs = tmp_path_factory.mktemp("runs"), {}

    def source(form, weights="raw"):
        if form not in runs:
            name, changes, _ = FORMS[form]
            task = task_of(name, sets[name], world.text_tokenizer, **changes)
            runs[form] = write_run(folder / str(len(runs)), task)
        return read_finetuned(runs[form], weights)

    return source


@pytest.fixture(scope="module")
def expected(source_of):
    """What JAX computes, once for each form: controls change PyTorch's side alone."""
    found = {}

    def outputs(source, batch):
        key = source.run.folder
        if key not in found:
            found[key] = jax_outputs(source, batch)
        return found[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_finetuned, "jax_outputs", outputs)
        yield


def exported(source, out):
    out.mkdir(exist_ok=True)
    torch_finetuned.write(source, out)
    write_manifest(out)
    return out


@pytest.mark.parametrize("form", FORMS)
def test_both_sides_agree_with_every_bias_and_scale_random(source_of, expected, tmp_path, form):
    source = source_of(form)
    found = torch_finetuned.check(source, exported(source, tmp_path / "out"))
    assert len(found.cases) == FORMS[form][2] and found.summary()["max_abs"] < 5e-6


@pytest.mark.parametrize(
    ("form", "before", "after"),
    [
        ("images", "states[:, 1:].mean(dim=1)", "states.mean(dim=1)"),
        ("images", 'eps=network["norm_eps"]', "eps=1e-3"),
        ("images", "network, final_norm=False", "network, final_norm=True"),
        ("texts", "return states[:, 0]", "return states[:, 1]"),
        ("texts, mean, relative", "text[:, 1:] != self.pad", "text[:, 1:] >= 0"),
        ("answers", "nn.GELU()", "nn.GELU('tanh')"),
        ("answers", "states[VISION][:, 0]))", "states[LANGUAGE][:, 0]))"),
        ("answers", "eps=eps", "eps=1e-3"),
        ("statements", ", self.second_modality)", ", self.vision_embed.modality)"),
        ("statements", "for each in states for", "for each in states[::-1] for"),
        ("statements", "in (VISION, LANGUAGE)]", "in (LANGUAGE, VISION)]"),
        ("statements", "nn.LayerNorm(4 * width, eps=eps)", "nn.LayerNorm(4 * width, eps=1e-2)"),
        ("retrieval", "network, final_norm=True", "network, final_norm=False"),
        (
            "retrieval",
            "[states[VISION][:, 0], states[LANGUAGE][:, 0]]",
            "[states[LANGUAGE][:, 0], states[VISION][:, 0]]",
        ),
        ("retrieval", "self.text_projection(state)", "self.image_projection(state)"),
    ],
)
def test_another_network_is_told_apart(source_of, expected, tmp_path, form, before, after):
    source = source_of(form)
    out = exported(source, tmp_path / "out")
    text = (out / "vlbeit_finetuned.py").read_text()
    assert before in text
    (out / "vlbeit_finetuned.py").write_text(text.replace(before, after))
    try:
        found = torch_finetuned.check(source, out).summary()["max_abs"]
    except ValueError as error:  # A final norm that is there, or is not, changes the names.
        assert "final_norm" in before + after and "do not fit config.json" in str(error)
    else:
        assert found > 1e-4


@pytest.fixture(scope="module")
def figures(source_of, sets, tmp_path_factory):
    """Per task, what evaluate.py prints: of the exported weights, and of others as a control.

    One process, in which nothing but torch and safetensors is loaded, scores all of them.
    """
    base = tmp_path_factory.mktemp("figures")
    for task, form in OF_TASK.items():
        source = source_of(form)
        turned = {name: -value[::-1] for name, value in source.params.items() if value.ndim}
        other = dataclasses.replace(source, params={**source.params, **turned})
        (base / task).mkdir()
        with pytest.MonkeyPatch.context() as patch:  # One device compiles faster than eight.
            patch.setattr(finetuned, "make_mesh", lambda config: tiny.mesh_of())
            finetuned.write_evaluation(source, [str(sets[task])], "", base / task)
        exported(source, base / task)
        no_tokenizer = shutil.ignore_patterns("text_tokenizer")
        shutil.copytree(base / task, base / f"{task} of other weights", ignore=no_tokenizer)
        exported(other, base / f"{task} of other weights")
    code = """
import os, pathlib, runpy, sys
for folder in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    os.chdir(folder)
    for name in ("vlbeit_torch", "vlbeit_captions", "vlbeit_finetuned"):
        sys.modules.pop(name, None)
    sys.argv[1:], sys.path[0] = ["--json", "found.json", "--batch_size=5"], str(folder)
    try:
        runpy.run_path("evaluate.py", run_name="__main__")
    except SystemExit as end:
        assert not end.code
assert not {"jax", "flax", "vlbeit_jax", "tensorflow", "transformers"} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, base],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return {path.name: json.loads((path / "found.json").read_text()) for path in base.iterdir()}


@pytest.mark.parametrize("task", OF_TASK)
def test_evaluation_in_pytorch_has_the_figures_of_ours(figures, task):
    found, other = figures[task], figures[f"{task} of other weights"]
    assert found["metrics"] == pytest.approx(found["jax"], abs=1e-6)
    assert found["protocol"]["split"] == "test" and found["jax"] == other["jax"]
    assert other["metrics"] != pytest.approx(other["jax"], abs=1e-2)
    names = {name.split("/")[0] for name in found["metrics"]}
    assert (
        names
        == {
            "image_classification": {"accuracy", "top5", "mean_class", "loss", "count"},
            "text_classification": {"accuracy", "top5", "mean_class", "loss", "count"},
            "vqa": {"accuracy", "count", "accuracy_other", "accuracy_yes_no"},
            "visual_reasoning": {"accuracy", "consistency", "loss", "count", "statements"},
            "retrieval": {"retrieval", "reranked"},
        }[task]
    )
    assert len(found["metrics"]) == (12 if task == "retrieval" else len(names))


def test_similarities_are_scaled_as_in_training(source_of, tmp_path):
    source = source_of("retrieval")
    out = exported(source, tmp_path / "out")
    with verify.importable(out):
        module = verify.module_of(out / "vlbeit_finetuned.py")
    model = module.load(out)
    vectors = torch.nn.functional.normalize(torch.randn(3, 24), dim=-1)
    for scale in (0.3, 9.0):  # The second is above the limit of 100.
        with torch.no_grad():
            model.logit_scale.fill_(scale)
            found = model.similarity(vectors, vectors)
        params = {"head": {"logit_scale": np.float32(scale)}}
        limited = source.opened.task.objective.log_scale(Variables(params, {}, {}))
        np.testing.assert_allclose(found.diagonal(), np.full(3, np.exp(limited)), rtol=1e-5)


def test_inputs_that_the_model_cannot_take_are_refused(source_of, tmp_path):
    out = exported(source_of("images"), tmp_path / "out")
    with verify.importable(out):
        module = verify.module_of(out / "vlbeit_finetuned.py")
        pretrained = verify.module_of(out / "vlbeit_torch.py")
    with pytest.raises(ValueError, match="this model reads images only; leave the text out"):
        module.load(out)(text=torch.ones(1, 3, dtype=torch.long))
    with pytest.raises(ValueError, match=r"load it with vlbeit_finetuned\.load"):
        pretrained.load(out)
    config = json.loads((exported(source_of("retrieval"), out) / "config.json").read_text())
    apart = module.DualEncoder(config["model"], config["network"] | {"matching": False})
    with pytest.raises(ValueError, match="trained without matching"):
        apart.match(torch.zeros(1, 3, 32, 32), torch.ones(1, 3, dtype=torch.long))


def test_a_saved_model_is_of_the_same_class_and_bits(source_of, tmp_path):
    pytest.importorskip("huggingface_hub")
    out = exported(source_of("texts, mean, relative"), tmp_path / "out")
    with verify.importable(out):
        module = verify.module_of(out / "vlbeit_finetuned.py")
    model = module.Classifier.from_pretrained(out)
    model.save_pretrained(tmp_path / "saved")
    found = module.Classifier.from_pretrained(tmp_path / "saved")
    assert found.network == model.network and (tmp_path / "saved" / "vlbeit_torch.py").is_file()
    pairs = zip(found.state_dict().values(), model.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    with pytest.raises(ValueError, match="holds a Classifier, not a VQA"):
        module.VQA.from_pretrained(out)


def test_fine_tuned_models_go_further_too(source_of, tmp_path):
    """Text of open length through torch.export; the mean leaves padding out."""
    out = exported(source_of("texts, mean, relative"), tmp_path / "out")
    with verify.importable(out):
        module = verify.module_of(out / "vlbeit_finetuned.py")
    model = module.load(out)
    text = torch.randint(5, 40, (2, 10))
    shapes = {"text": {0: torch.export.Dim("rows"), 1: torch.export.Dim("length", min=3, max=12)}}
    with torch.no_grad():
        program = torch.export.export(model, (), {"text": text}, dynamic_shapes=shapes).module()
        padded = torch.tensor([[2, 9, 3, 0, 0], [2, 7, 8, 11, 3], [2, 5, 6, 3, 0]])
        torch.testing.assert_close(program(text=padded), model(text=padded), atol=1e-6, rtol=0)
        assert (model(text=padded[:1]) - model(text=padded[:1, :3])).abs().max() < 1e-5


def test_the_weights_are_those_that_evaluation_takes(source_of, tmp_path):
    raw, ema = source_of("images"), source_of("images", "ema")
    name = "head/out/bias"
    assert (raw.params[name] != ema.params[name]).all()
    assert (ema.params[name] == np.asarray(ema.run.params["head"]["out"]["bias"])).all()
    out = exported(ema, tmp_path / "out")
    assert json.loads((out / "config.json").read_text())["weights"] == "ema"
    shutil.copytree(raw.run.folder, tmp_path / "run")
    step = tmp_path / "run" / "checkpoints" / "3"
    shutil.rmtree(step / "ema")
    description = json.loads((step / "description" / "metadata").read_text())
    del description["arrays"]["ema"]
    (step / "description" / "metadata").write_text(json.dumps(with_seal(description)))
    with pytest.raises(UsageError, match="has no averaged parameters"):
        read_finetuned(tmp_path / "run", "ema")
