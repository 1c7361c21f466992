"""BEiT-3's form in the PyTorch module: alone, with a part of it, and read from a published file."""

import json

import pytest

from tests import tiny
from tests.convert.conftest import needs_torch, small_run, write_random_run
from tests.convert.named import randomised
from tests.convert.test_beit3 import published_shapes
from vlbeit_jax.config import SIZES, Config, ModelConfig, RunConfig
from vlbeit_jax.convert.files import write_manifest
from vlbeit_jax.convert.formats import torch_module

pytestmark = needs_torch
BEIT3 = {
    "decoupled": True,
    "sub_norm": True,
    "fused_layers": 0,
    "layer_scale": 0.0,
    "norm_eps": 1e-5,
    "pad": 1,
}


def written(folder, **model):
    run, out = small_run(folder / "run", **model), folder / "out"
    out.mkdir()
    torch_module.write(run, out)
    write_manifest(out)
    return run, out


@pytest.mark.parametrize(
    "model",
    [
        BEIT3,
        BEIT3 | {"sub_norm": False, "layer_scale": 0.1},
        {"sub_norm": True, "fused_layers": 1},
        {"sub_norm": True, "positions": "relative"},
        BEIT3 | {"positions": "relative"},
    ],
    ids=str,
)
def test_both_sides_agree_with_every_bias_and_scale_random(tmp_path, model):
    found = torch_module.check(*written(tmp_path, **model))
    assert {name.split("/")[0] for name in found.cases} == {"image", "image_masked", "text", "pair"}
    assert found.summary()["max_abs"] < 2e-5


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "self.down(self.inner_norm(functional.gelu(self.up(self.norm(x)))))",
            "self.down(functional.gelu(self.up(self.norm(x))))",
        ),
        (
            "self.out(self.inner_norm(attend(query, key, value, mask), layout), layout)",
            "self.out(attend(query, key, value, mask), layout)",
        ),
        ("self[name](run)", "self[VISION](run)"),
        ("return norm(x, layout) if", "return norm[VISION](x) if"),
        ('eps=config["layer_norm_eps"], decoupled', "eps=1e-4, decoupled"),
    ],
    ids=[
        "expert's inner norm",
        "attention's inner norm",
        "one for all modalities",
        "norm of images",
        "eps",
    ],
)
def test_another_network_is_told_apart(tmp_path, before, after):
    run, out = written(tmp_path, **BEIT3)
    text = (out / "vlbeit_torch.py").read_text()
    assert text.count(before) == 1
    (out / "vlbeit_torch.py").write_text(text.replace(before, after))
    assert torch_module.check(run, out).summary()["max_abs"] > 1e-4


@pytest.mark.slow
def test_base_size_agrees_within_the_limit(tmp_path):
    """With BEiT-3's vocabulary and places."""
    config = Config(
        model=ModelConfig(**SIZES["base"] | BEIT3, vocabulary=64010, text_positions=1024),
        run=RunConfig(steps=1),
    )
    run = write_random_run(tmp_path / "run", config)
    done = tiny.command(
        "vlbeit_jax.convert",
        f"--from={run}",
        "--to=torch",
        f"--out={tmp_path / 'out'}",
        "--verify",
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "verify.json").read_text())["max_abs"] < 2e-5


def test_a_published_file_runs_without_torchscale(tmp_path):
    """Imported, exported and compared; which word pieces are special there is not known here."""
    import torch

    file = tmp_path / "beit3.pth"
    torch.save(
        {
            "model": {
                name: torch.from_numpy(value)
                for name, value in randomised(published_shapes()).items()
            }
        },
        file,
    )
    done = tiny.command(
        "vlbeit_jax.convert", f"--from={file}", "--format=beit3", f"--out={tmp_path / 'start'}"
    )
    assert done.returncode == 0, done.stderr
    done = tiny.command(
        "vlbeit_jax.convert",
        f"--from={tmp_path / 'start'}",
        "--to=torch",
        f"--out={tmp_path / 'out'}",
        "--verify",
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "verify.json").read_text())["max_abs"] < 5e-5
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    done = tiny.command(
        "vlbeit_jax.convert",
        f"--from={tmp_path / 'start'}",
        "--to=torch",
        f"--out={tmp_path / 'x'}",
        "--data=sample:pairs",
    )
    assert (
        done.returncode == 2
        and "the run has neither a text nor a visual tokenizer" in done.stderr
        and not (tmp_path / "x").exists()
    )
    assert (
        config["specials"] is None
        and config["visual_tokenizer"] is None
        and config["model"]["pad"] == 1
    )
