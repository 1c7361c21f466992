"""Exports agree in the programs they are for: transformers 4 and 5, VLMo; at base size all do."""

import dataclasses
import json

import pytest

from tests import tiny
from tests.convert.conftest import needs_torch, write_random_run
from tests.convert.peers import convert
from vlbeit_jax.config.common import OptimizerConfig
from vlbeit_jax.convert.formats import vlmo
from vlbeit_jax.convert.source import read_run
from vlbeit_jax.errors import UsageError
from vlbeit_jax.runtime.start import train
from vlbeit_jax.types import Positions


@needs_torch
@pytest.mark.parametrize(
    "peer",
    [None, pytest.param("transformers-4", marks=pytest.mark.slow)],
    ids=["transformers-5", "transformers-4"],
)
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


@pytest.mark.slow
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
