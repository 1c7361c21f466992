"""Exports agree in the programs they are for: transformers 4 and 5, torchscale, VLMo."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import pytest

from tests import tiny
from tests.convert.conftest import needs_torch, write_random_run
from tests.processes import command
from vlbeit_jax.config.common import OptimizerConfig
from vlbeit_jax.convert.formats import vlmo
from vlbeit_jax.convert.source import read_run
from vlbeit_jax.errors import UsageError
from vlbeit_jax.runtime.start import train
from vlbeit_jax.types import Positions

PEERS = pathlib.Path(sys.prefix) / "peers"


def convert(*arguments, peer=None):
    environment = dict(os.environ)
    if peer:
        environment["PYTHONPATH"] = os.pathsep.join([str(tiny.TOP), str(PEERS / peer)])
    environment |= {"HF_HUB_OFFLINE": "1"}
    return command("vlbeit_jax.convert", *arguments, environment=environment, timeout=600)


@needs_torch
@pytest.mark.parametrize("peer", [None, "transformers-4"], ids=["transformers-5", "transformers-4"])
def test_hugging_face_opens_it_and_agrees(random_run, tmp_path, peer):
    out = tmp_path / "out"
    done = convert(f"--from={random_run}", "--to=hf-beit", f"--out={out}", "--verify", peer=peer)
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "verify.json").read_text())
    assert found["peer"].startswith("transformers 4." if peer else "transformers 5.")
    assert (
        found["max_abs"] < 2e-5
        and {"image/image", "image/backbone", "image_masked/image_logits"} <= found["cases"].keys()
    )
    assert (
        json.loads((out / "preprocessor_config.json").read_text())["image_processor_type"]
        == "BeitImageProcessor"
    )


@needs_torch
@pytest.mark.parametrize(
    "change",
    [{"hidden_act": "gelu_new"}, {"layer_norm_eps": 1e-5}, {"use_mean_pooling": False}],
    ids=str,
)
def test_another_network_is_told_apart(random_run, tmp_path, change):
    from vlbeit_jax.convert.formats import hf_beit

    if random_run.name == "relative":
        pytest.skip("the changes do not depend on positions")
    run, out = read_run(random_run), tmp_path / "out"
    out.mkdir()
    hf_beit.write(run, out)
    config = out / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    if "use_mean_pooling" in change:
        with pytest.raises(ValueError, match="does not accept all names"):
            hf_beit.check(run, out)
    else:
        assert hf_beit.check(run, out).summary()["max_abs"] > 1e-4


def test_vlmo_agrees_or_refuses_by_name(random_run, tmp_path):
    out = tmp_path / "out"
    done = convert(f"--from={random_run}", "--to=vlmo", f"--out={out}", "--verify")
    if random_run.name == "absolute":
        assert (
            done.returncode == 2 and "model.positions=absolute" in done.stderr and not out.exists()
        )
        return
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "verify.json").read_text())
    assert found["max_abs"] < 5e-5 and {name.split("/")[0] for name in found["cases"]} == {
        "image",
        "text",
        "pair",
    }


def test_a_vlmo_file_starts_a_run(random_run, world, tmp_path):
    """Export, import and train: what VLMo holds is bit-identical, the rest is initialised."""
    if random_run.name == "absolute":
        pytest.skip("VLMo has relative positions")
    convert(f"--from={random_run}", "--to=vlmo", f"--out={tmp_path / 'out'}")
    file = tmp_path / "out" / vlmo.WEIGHTS_FILE
    done = convert(f"--from={file}", "--format=vlmo", f"--out={tmp_path / 'start'}", "--codes=32")
    assert done.returncode == 0, done.stderr
    assert (
        "matched  relative_position_bias_table" in done.stdout
        and "fresh    vision_head/kernel" in done.stdout
    )
    assert (tmp_path / "start" / "import.txt").read_text().count("matched") == done.stdout.count(
        "matched"
    )
    before, after = read_run(random_run), read_run(tmp_path / "start")
    for name in (
        "text_embed/words",
        "encoder/block_0/attention/qkv",
        "encoder/block_1/vision_language/down/kernel",
    ):
        rows = tiny.PIECES if name.endswith("words") else None
        assert (before.params[name][:rows] == after.params[name][:rows]).all()
    assert not (before.params["vision_head/kernel"] == after.params["vision_head/kernel"]).all()

    config = tiny.pretrain_config(
        world, schedule="pair", steps=1, log_every=1, start_from=str(tmp_path / "start")
    )
    config = tiny.changed(
        config,
        task={"model": {"positions": Positions.RELATIVE, "drop_path": 0.0}},
        optimizer=OptimizerConfig(peak_lr=1e-12, end_lr=0.0, warmup_steps=0, weight_decay=0.0),
    )
    train(config, tmp_path / "run")
    trained, fresh = read_run(tmp_path / "run"), read_run(tmp_path / "start")
    for name in fresh.params:  # The rate is so small that what it started from can be seen.
        assert abs(trained.params[name] - fresh.params[name]).max() < 1e-8, name
    wider = tiny.changed(config, task={"model": {"width": 64}})
    with pytest.raises(
        UsageError, match=r"another model:(?s:.)*vision_embed/cls: \(32,\) there, \(64,\) here"
    ):
        train(wider, tmp_path / "wider")
    nowhere = dataclasses.replace(
        config, run=dataclasses.replace(config.run, start_from=str(tmp_path))
    )
    with pytest.raises(UsageError, match="not the folder of a run"):
        train(nowhere, tmp_path / "nowhere")
    assert not (tmp_path / "wider").exists() and not (tmp_path / "nowhere").exists()


def test_an_absent_peer_is_named_before_anything_is_written(random_run, tmp_path):
    done = convert(f"--from={random_run}", "--to=beit3", f"--out={tmp_path / 'out'}", "--verify")
    said = (
        "model.positions=relative" if random_run.name == "relative" else "torchscale"
    )  # What no peer can help with comes first.
    assert done.returncode == 2 and said in done.stderr and not (tmp_path / "out").exists()


@needs_torch
def test_torchscale_agrees_or_relative_positions_are_refused(random_run, tmp_path):
    """Images and texts in one state dict, pairs in the other; LayerScale and types are folded."""
    out = tmp_path / "out"
    done = convert(
        f"--from={random_run}", "--to=beit3", f"--out={out}", "--verify", peer="torchscale"
    )
    if random_run.name == "relative":
        assert (
            done.returncode == 2 and "model.positions=relative" in done.stderr and not out.exists()
        )
        return
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
@pytest.mark.parametrize(("name", "value"), [("layernorm_eps", 1e-4), ("subln", False)])
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
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tiny.TOP), str(PEERS / "torchscale")])
    }
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "peer", "positions"),
    [
        pytest.param("hf-beit", None, "relative", marks=needs_torch),
        pytest.param("beit3", "torchscale", "absolute", marks=needs_torch),
        ("vlmo", None, "relative"),
    ],
)
def test_base_size_agrees_within_the_limit(world, tmp_path, target, peer, positions):
    from vlbeit_jax.config.networks import SIZES, ModelConfig

    model = ModelConfig(**SIZES["base"], positions=Positions(positions))
    config = tiny.changed(tiny.pretrain_config(world), task={"model": model})
    run = write_random_run(tmp_path / "run", config)
    done = convert(
        f"--from={run}", f"--to={target}", f"--out={tmp_path / 'out'}", "--verify", peer=peer
    )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "verify.json").read_text())["max_abs"] < 1e-4
