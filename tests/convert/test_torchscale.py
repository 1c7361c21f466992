"""Exports to BEiT-3's form agree in torchscale, and are refused where it cannot hold them."""

import dataclasses
import json
import os
import subprocess
import sys

import pytest

from tests import tiny
from tests.convert.conftest import needs_torch, write_random_run
from tests.convert.peers import convert, peer_path
from vlbeit_jax.convert.source import read_run
from vlbeit_jax.types import Positions


def test_an_absent_peer_is_named_before_anything_is_written(random_run, tmp_path):
    done = convert(f"--from={random_run}", "--to=beit3", f"--out={tmp_path / 'out'}", "--verify")
    said = (
        "model.positions=relative" if random_run.name == "relative" else "torchscale"
    )  # What no peer can help with comes first.
    assert done.returncode == 2 and said in done.stderr and not (tmp_path / "out").exists()


@needs_torch
@pytest.mark.parametrize("random_run", [Positions.ABSOLUTE], ids=str, indirect=True)
def test_torchscale_agrees(random_run, tmp_path):
    """Images and texts in one state dict, pairs in the other; LayerScale and types are folded."""
    out = tmp_path / "out"
    done = convert(
        f"--from={random_run}", "--to=beit3", f"--out={out}", "--verify", peer="torchscale"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "verify.json").read_text())
    assert found["max_abs"] < 2e-5 and {name.split("/")[0] for name in found["cases"]} == {
        "image",
        "image_masked",
        "text",
        "pair",
    }


@pytest.fixture(scope="module")
def decoupled_run(world, tmp_path_factory):
    """BEiT-3's form: everything per modality, inner norms, another epsilon, padding 1."""
    config = tiny.pretrain_config(world)
    model = dataclasses.replace(
        config.task.model,
        width=128,
        heads=2,
        decoupled=True,
        sub_norm=True,
        norm_eps=1e-5,
        layer_scale=0.0,
        fused_layers=0,
        pad=1,
        drop_path=0.1,
    )
    types = ("vision_embed/type", "text_embed/type")
    return write_random_run(
        tmp_path_factory.mktemp("decoupled") / "run",
        tiny.changed(config, task={"model": model}),
        zero=types,
    )


@needs_torch
def test_the_decoupled_form_runs_torchscale_weights_exactly(decoupled_run, tmp_path):
    """Export, verify in torchscale, import again: the same bits under the same configuration."""
    out = tmp_path / "out"
    done = convert(
        f"--from={decoupled_run}", "--to=beit3", f"--out={out}", "--verify", peer="torchscale"
    )
    assert done.returncode == 0, done.stderr
    assert (
        json.loads((out / "verify.json").read_text())["max_abs"] < 5e-5
        and not (out / "beit3_fusion.safetensors").exists()
    )
    done = convert(
        f"--from={out / 'beit3.safetensors'}", "--format=beit3", f"--out={tmp_path / 'again'}"
    )
    assert done.returncode == 0, done.stderr
    before, after = read_run(decoupled_run), read_run(tmp_path / "again")
    assert (
        before.params.keys() == after.params.keys()
        and dataclasses.replace(before.model, matmul="auto") == after.model
    )
    for name in before.params:
        rows = (
            slice(tiny.PIECES)
            if name in ("text_embed/words", "language_head/bias")
            else slice(None)
        )
        columns = slice(tiny.PIECES) if name == "language_head/kernel" else slice(None)
        assert (
            before.params[name][rows][..., columns] == after.params[name][rows][..., columns]
        ).all(), name


@pytest.mark.parametrize("target", ["hf-beit", "vlmo"])
def test_what_only_beit3_has_is_refused_by_name(decoupled_run, tmp_path, target):
    done = convert(f"--from={decoupled_run}", f"--to={target}", f"--out={tmp_path / 'out'}")
    assert (
        done.returncode == 2
        and "model.decoupled=True" in done.stderr
        and not (tmp_path / "out").exists()
    )


@needs_torch
@pytest.mark.parametrize(
    ("name", "value"),
    [pytest.param("layernorm_eps", 1e-4, marks=pytest.mark.slow), ("subln", False)],
)
def test_another_torchscale_is_told_apart(decoupled_run, tmp_path, name, value):
    """In a process of its own, because torchscale is not on the path here."""
    code = (
        "import json, pathlib, sys\n"
        "from vlbeit_jax.convert.formats import beit3, beit3_check\n"
        "from vlbeit_jax.convert.source import read_run\n"
        "run, out = read_run(pathlib.Path(sys.argv[1])), pathlib.Path(sys.argv[2])\n"
        "out.mkdir(); beit3.write(run, out); file = out / 'config.json'\n"
        "file.write_text(json.dumps(json.loads(file.read_text()) | json.loads(sys.argv[3])))\n"
        "print(beit3_check.check(run, out).summary()['max_abs'])"
    )
    environment = os.environ | {"PYTHONPATH": peer_path("torchscale")}
    command = [
        sys.executable,
        "-c",
        code,
        decoupled_run,
        tmp_path / "out",
        json.dumps({name: value}),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    if name == "subln":
        assert done.returncode == 1 and "Unexpected key(s)" in done.stderr
    else:
        assert done.returncode == 0 and float(done.stdout.split()[-1]) > 1e-4, done.stderr
