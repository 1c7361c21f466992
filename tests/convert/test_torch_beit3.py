"""BEiT-3's form in the PyTorch module: alone, with a part of it, and read from a published file."""

import json

import pytest

from tests import tiny
from tests.convert.conftest import needs_torch, small_run, write_random_run
from tests.convert.named import randomised, tensor_file
from tests.convert.test_beit3 import published_shapes
from vlbeit_jax.config.common import RunConfig
from vlbeit_jax.config.networks import SIZES, ModelConfig
from vlbeit_jax.convert.examples import write_examples
from vlbeit_jax.convert.files import write_manifest
from vlbeit_jax.convert.formats import IMPORTS, torch_module
from vlbeit_jax.convert.import_options import ImportOptions
from vlbeit_jax.errors import UsageError
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.pretrain import Pretrain

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
        {"sub_norm": True, "fused_layers": 1},
        BEIT3 | {"positions": "relative"},
        # A published file, below, has BEiT-3's form as it is.
        *(
            pytest.param(each, marks=pytest.mark.slow)
            for each in (
                BEIT3,
                BEIT3 | {"sub_norm": False, "layer_scale": 0.1},
                {"sub_norm": True, "positions": "relative"},
            )
        ),
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
            "self.out(self.inner_norm(mixed, layout), layout)",
            "self.out(mixed, layout)",
        ),
        ("self[name](run)", "self[VISION](run)"),
        ("return norm(x, layout) if", "return norm[VISION](x) if"),
        ('eps=config["layer_norm_eps"],\n            decoupled', "eps=1e-4, decoupled"),
    ],
    ids=[
        "expert's inner norm",
        "attention's inner norm",
        "one for all modalities",
        "norm of images",
        "eps",
    ],
)
def test_another_network_is_told_apart(tmp_path, pairs_only, before, after):
    run, out = written(tmp_path, **BEIT3)
    text = (out / "vlbeit_torch.py").read_text()
    assert text.count(before) == 1
    (out / "vlbeit_torch.py").write_text(text.replace(before, after))
    assert torch_module.check(run, out).summary()["max_abs"] > 1e-4


@pytest.mark.slow
def test_base_size_agrees_within_the_limit(tmp_path):
    """With BEiT-3's vocabulary and places."""
    config = Config(
        task=Pretrain(
            model=ModelConfig(**SIZES["base"] | BEIT3, vocabulary=64010, text_positions=1024)
        ),
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
    """Imports, exports and compares; the numbers of its special word pieces are unknown here."""
    start, file = (
        tmp_path / "start",
        tensor_file(published_shapes(), randomised(published_shapes())),
    )
    IMPORTS["beit3"].read(file, tmp_path / "beit3.pth", ImportOptions(), start)
    done = tiny.command(
        "vlbeit_jax.convert",
        f"--from={start}",
        "--to=torch",
        f"--out={tmp_path / 'out'}",
        "--verify",
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "verify.json").read_text())["max_abs"] < 5e-5
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["specials"] is None and config["visual_tokenizer"] is None
    assert config["model"]["pad"] == 1
    with pytest.raises(UsageError, match="the run has neither a text nor a visual tokenizer"):
        write_examples(start, ["sample:pairs"], 1, tmp_path)
