"""Classifiers of images in transformers: the same logits and views, and refusals."""

import dataclasses
import functools
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.convert.conftest import needs_torch
from tests.convert.finetuned_runs import LABELS, sets_in, task_of, write_run
from tests.convert.peers import peer_path
from vlbeit_jax.config.finetune import LabelledImagesConfig
from vlbeit_jax.convert.finetuned import jax_outputs, read_finetuned
from vlbeit_jax.convert.formats import hf_beit_classifier
from vlbeit_jax.data.examples.labelled import evaluation_view
from vlbeit_jax.errors import UsageError

RELATIVE = {"positions": "relative"}
FORMS = {"mean": {}, "CLS, relative": {"pool": "cls", "model": RELATIVE}}
MORE_FORMS = FORMS | {
    "mean, relative, no scale": {"model": RELATIVE | {"layer_scale": 0.0}},
    "CLS": {"pool": "cls"},
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return sets_in(tmp_path_factory.mktemp("sets") / "own")["image_classification"]


@pytest.fixture(scope="module")
def source_of(images, tmp_path_factory):
    """From settings of a task to a run, written once."""

    @functools.cache
    def written_once(changes):
        task = task_of("image_classification", images, "", **json.loads(changes))
        return write_run(tmp_path_factory.mktemp("run") / "run", task)

    return lambda **changes: read_finetuned(written_once(json.dumps(changes)), "raw")


@pytest.fixture(scope="module", autouse=True)
def computed_once():
    """Controls change the side of transformers alone."""
    found = {}

    def outputs(source, batch):
        if source.run.folder not in found:
            found[source.run.folder] = jax_outputs(source, batch)
        return found[source.run.folder]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hf_beit_classifier, "jax_outputs", outputs)
        yield


def written(source, out):
    out.mkdir()
    hf_beit_classifier.write(source, out)
    return out


@needs_torch
@pytest.mark.parametrize("form", FORMS)
def test_logits_agree_and_classes_have_their_names(source_of, tmp_path, form):
    source = source_of(**FORMS[form])
    hf_beit_classifier.require(source)
    out = written(source, tmp_path / "out")
    found = hf_beit_classifier.check(source, out)
    assert list(found.cases) == ["logits"] and found.summary()["max_abs"] < 5e-6
    names = json.loads((out / "config.json").read_text())["id2label"]
    assert list(names.values()) == sorted(LABELS) == list(source.opened.task.class_names)


@needs_torch
@pytest.mark.parametrize(
    "change", [{"hidden_act": "gelu_new"}, {"layer_norm_eps": 1e-3}, {"use_mean_pooling": False}]
)
def test_another_network_is_told_apart(source_of, tmp_path, change):
    source = source_of()
    out = written(source, tmp_path / "out")
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | change))
    if "use_mean_pooling" in change:
        with pytest.raises(ValueError, match="does not accept all names"):
            hf_beit_classifier.check(source, out)
    else:
        assert hf_beit_classifier.check(source, out).summary()["max_abs"] > 1e-4


@needs_torch
@pytest.mark.parametrize(("view", "share"), [("crop", 1.0), ("crop", 0.8), ("squash", 1.0)])
def test_its_processor_makes_the_view_of_our_evaluation(source_of, tmp_path, view, share):
    """Resizing differs by rounding and by filters; another view differs by tens of levels."""
    import transformers

    settings = LabelledImagesConfig(view=view, crop_share=share)
    source = source_of()
    source.opened.task = dataclasses.replace(source.opened.task, image=settings)
    out = written(source, tmp_path / "out")
    processor = transformers.AutoImageProcessor.from_pretrained(out)
    down, across = np.mgrid[:96, :160]
    picture = np.stack([down * 2, across, (down + across) // 2], axis=-1).astype(np.uint8)
    found = processor(picture, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
    levels = (found + 1) * 127.5
    assert np.abs(levels - evaluation_view(picture, 32, settings)).mean() < 1
    other = LabelledImagesConfig(view="squash" if view == "crop" else "crop")
    assert np.abs(levels - evaluation_view(picture, 32, other)).mean() > 5


def test_what_beit_cannot_compute_is_refused(source_of):
    beit3 = {"decoupled": True, "sub_norm": True, "fused_layers": 0}
    with pytest.raises(UsageError, match=r"model\.decoupled=True; export with --to=torch$"):
        hf_beit_classifier.require(source_of(model=beit3))


@pytest.mark.slow
@needs_torch
@pytest.mark.parametrize("form", MORE_FORMS)
def test_transformers_4_opens_it_and_agrees(source_of, tmp_path, form):
    source, out = source_of(**MORE_FORMS[form]), tmp_path / "out"
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = peer_path("transformers-4")
    command = [sys.executable, "-m", "vlbeit_jax.convert", f"--from={source.run.folder}"]
    done = subprocess.run(
        [*command, "--to=hf-beit", f"--out={out}", "--verify"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "verify.json").read_text())
    assert found["peer"].startswith("transformers 4.") and found["max_abs"] < 5e-6
