"""Runs on DALL-E's tokens, and on visual tokenizers that take smaller images than the model."""

import json
import math
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from tests import tiny
from tests.convert.conftest import write_random_run
from tests.convert.published_dalle import SMALL, published, read
from vlbeit_jax.config.common import MeshConfig, RunConfig
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.convert import source, verify
from vlbeit_jax.convert.files import write_manifest
from vlbeit_jax.convert.formats import torch_module
from vlbeit_jax.convert.verify import module_of
from vlbeit_jax.data.source import VALIDATION, open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.dalle import DalleConfig
from vlbeit_jax.models.visual_tokenizer import encode
from vlbeit_jax.report.page import write_report
from vlbeit_jax.report.samples import pictures, spread
from vlbeit_jax.runtime.pretrained import evaluate, open_run
from vlbeit_jax.runtime.start import train
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.assets import VISUAL_TOKENIZER
from vlbeit_jax.tasks.pretrain import Pretrain
from vlbeit_jax.tasks.visual_tokens import open_visual_tokens
from vlbeit_jax.training.mesh import make_mesh


def with_tokenizer(world, folder, schedule="image+text+pair", **model):
    config = tiny.pretrain_config(
        world, steps=2, schedule=schedule, log_every=1, checkpoint_every=2
    )
    return tiny.changed(config, task={"visual_tokenizer": str(folder), "model": model})


@pytest.fixture(scope="module")
def imported_small(tmp_path_factory):
    return read(tmp_path_factory.mktemp("small"), SMALL)


@pytest.fixture(scope="module")
def run(world, imported_small, tmp_path_factory):
    """Views of 32 px in patches of 8, tokens from 16 px with stride 4."""
    folder = tmp_path_factory.mktemp("pretrain") / "run"
    train(with_tokenizer(world, imported_small), folder)
    return folder


@pytest.mark.slow
def test_a_run_learns_its_tokens_and_stands_on_its_own(run, world, imported_small, tmp_path):
    before, found = open_visual_tokens(imported_small), open_run(run)
    assert found.step == 2 and found.model.visual.folder == run / VISUAL_TOKENIZER
    assert (
        found.model.visual.fingerprint == before.fingerprint
        and found.model.visual.tokenizer.config == SMALL
    )
    results = evaluate(
        found, [str(world.pairs), str(world.texts)], make_mesh(MeshConfig()), draws=1
    )
    assert all(
        results[term]["count"] > 0 and math.isfinite(results[term]["loss"])
        for term in ("mim", "mlm", "mvlm_image", "mvlm_text")
    )
    page = write_report(run, [str(world.pairs)], results, tmp_path).read_text()
    assert (
        "visual tokens occur in the 16 held-out pictures" in page
        and "Hidden words of captions" in page
        and "Hidden patches" not in page
    )


@pytest.mark.slow
def test_another_tokenizer_is_not_gone_on_with(run, world, tmp_path):
    other = read(tmp_path / "other", SMALL, published(SMALL, seed=1))
    with pytest.raises(UsageError, match="visual_tokenizer"):
        train(with_tokenizer(world, other), run)


@pytest.fixture(scope="module")
def exported(run, world, tmp_path_factory):
    out = tmp_path_factory.mktemp("torch") / "out"
    data = [f"--data={world.pairs}", f"--data={world.texts}"]
    done = tiny.command(
        "vlbeit_jax.convert",
        f"--from={run}",
        "--to=torch",
        f"--out={out}",
        "--verify",
        "--draws=1",
        *data,
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_pytorch_gives_the_same_logits_tokens_and_accuracies(exported, run, world):
    found = json.loads((exported / "verify.json").read_text())
    assert "visual_tokenizer/logits" in found["cases"] and found["max_abs"] < 2e-5
    done = subprocess.run(
        [sys.executable, "evaluate.py", "--json=found.json"],
        cwd=exported,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    accuracies, model = json.loads((exported / "found.json").read_text()), open_run(run)
    wanted = evaluate(model, [str(world.pairs), str(world.texts)], make_mesh(MeshConfig()), draws=1)
    for term in ("mim", "mlm", "mvlm_image", "mvlm_text"):
        assert accuracies[term]["count"] == wanted[term]["count"]
        assert abs(accuracies[term]["accuracy"] - wanted[term]["accuracy"]) < 1e-3, term
    module = module_of(exported / "vlbeit_torch.py")
    _, tokenizer = module.load(exported)
    image = np.random.default_rng(2).integers(
        0, 256, (40, 32, 32, 3), np.uint8
    )  # Twice the encoder's size.
    with torch.no_grad():
        theirs = tokenizer.encode(
            module.normalise(torch.from_numpy(image).permute(0, 3, 1, 2))
        ).numpy()
    ours = np.asarray(
        encode(model.model.visual.tokenizer, model.model.visual.frozen, jnp.asarray(image))
    )
    assert (ours == theirs).mean() >= 0.995 and len(np.unique(ours)) > 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('(config["groups"] * config["blocks"]) ** -2', "1.0"),
        ("functional.max_pool2d", "functional.avg_pool2d"),
        ("+ 0.5  # DALL-E", "+ 0.4  # DALL-E"),
    ],
    ids=["gain", "pooling", "pixels"],
)
def test_another_encoder_is_told_apart(exported, run, monkeypatch, tmp_path, before, after):
    all_batches = verify.random_batches
    monkeypatch.setattr(
        verify, "random_batches", lambda config: {"image": all_batches(config)["image"]}
    )
    out = tmp_path / "out"
    shutil.copytree(exported, out)
    text = (out / "vlbeit_torch.py").read_text()
    assert text.count(before) == 1
    (out / "vlbeit_torch.py").write_text(text.replace(before, after))
    found = torch_module.check(source.read_run(run), out)
    assert (
        found.cases["visual_tokenizer/logits"]["max_abs"] > 1e-4
        and found.cases["image/image"]["max_abs"] < 2e-5
    )


@pytest.mark.slow
def test_the_full_encoder_agrees_within_the_limit(tmp_path):
    """Of the published size, beside a small model."""
    model = ModelConfig(
        width=64, depth=1, heads=1, ffn_width=64, fused_layers=0, text_positions=16, vocabulary=300
    )
    place = write_random_run(
        tmp_path / "run", Config(task=Pretrain(model=model), run=RunConfig(steps=1))
    )
    shutil.copytree(read(tmp_path / "encoder", DalleConfig()), place / VISUAL_TOKENIZER)
    done = tiny.command(
        "vlbeit_jax.convert",
        f"--from={place}",
        "--to=torch",
        f"--out={tmp_path / 'out'}",
        "--verify",
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert (
        json.loads((tmp_path / "out" / "verify.json").read_text())["cases"][
            "visual_tokenizer/logits"
        ]["max_abs"]
        < 1e-5
    )


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"codes": 64}, "codes=32, but task.model.codes=64"),
        (
            {"image_size": 40},
            r"images of 16 px into 4 x 4 .*image_size=40, patch_size=8\) into 5 x 5",
        ),
        (
            {"image_size": 24, "patch_size": 6},
            "image_size=16; task.model.image_size=24 must be a multiple",
        ),
    ],
    ids=str,
)
def test_a_misfit_is_refused_with_both_values(world, imported_small, tmp_path, model, said):
    with pytest.raises(UsageError, match=said):
        train(with_tokenizer(world, imported_small, **model), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_damaged_description_is_one_clear_error(imported_small, tmp_path):
    for content in ("{", '{"depth": 3}'):
        (tmp_path / "dalle.json").write_text(content)
        with pytest.raises(UsageError, match="dalle.json.*import the visual tokenizer again"):
            open_visual_tokens(tmp_path)


@pytest.mark.slow
def test_vqkd_takes_larger_views_too(world, tmp_path):
    """A model of 64 px in patches of 16 with VQ-KD of 32 px in patches of 8, in JAX and PyTorch."""
    config = with_tokenizer(world, world.vqkd, "pair", image_size=64, patch_size=16)
    train(config, tmp_path / "run")
    found = open_run(tmp_path / "run")
    visual = found.model.visual
    image = np.random.default_rng(2).integers(0, 256, (6, 32, 32, 3), np.uint8)
    larger = image.repeat(2, axis=1).repeat(2, axis=2)
    tokens, same = (
        np.asarray(encode(visual.tokenizer, visual.frozen, jnp.asarray(x))) for x in (larger, image)
    )
    np.testing.assert_array_equal(tokens, same)
    shown = pictures(found, spread(open_set(str(world.pairs)).records(VALIDATION), 3))
    assert shown is not None
    for each in (shown.through_tokens, shown.predicted, shown.original):
        assert each.shape == (3, 64, 64, 3)
    out = tmp_path / "out"
    out.mkdir()
    torch_module.write(source.read_run(tmp_path / "run"), out)
    write_manifest(out)
    module = module_of(out / "vlbeit_torch.py")
    _, tokenizer = module.load(out)
    with torch.no_grad():
        theirs = tokenizer.encode(
            module.normalise(torch.from_numpy(larger).permute(0, 3, 1, 2))
        ).numpy()
    assert (theirs == tokens).mean() >= 0.99
