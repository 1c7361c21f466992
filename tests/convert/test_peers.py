"""Exports in the programs they are for: two versions of transformers, and VLMo's network stated independently."""

import json
import os
import subprocess
import sys

import pytest

from tests import tiny
from vlbeit_jax.convert.formats import vlmo
from vlbeit_jax.convert.source import open_run

PEERS = tiny.TOP / ".venv" / "peers"


def convert(*arguments, peer=None):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tiny.TOP), *([str(PEERS / peer)] if peer else [])])}
    environment |= {"HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "vlbeit_jax.convert", *map(str, arguments)]
    return subprocess.run(command, cwd=tiny.TOP, env=environment, capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize("peer", [None, "transformers-4"], ids=["transformers-5", "transformers-4"])
def test_hugging_face_opens_it_and_agrees(random_run, tmp_path, peer):
    out = tmp_path / "out"
    done = convert(f"--from={random_run}", "--to=hf-beit", f"--out={out}", "--verify", peer=peer)
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "verify.json").read_text())
    assert found["peer"].startswith("transformers 4." if peer else "transformers 5.")
    assert found["max_abs"] < 2e-5 and {"image/image", "image/backbone", "image_masked/image_logits"} <= found["cases"].keys()
    assert json.loads((out / "preprocessor_config.json").read_text())["image_processor_type"] == "BeitImageProcessor"


@pytest.mark.parametrize("change", [{"hidden_act": "gelu_new"}, {"layer_norm_eps": 1e-5}, {"use_mean_pooling": False}], ids=str)
def test_another_network_is_told_apart(random_run, tmp_path, change):
    from vlbeit_jax.convert.formats import hf_beit

    run, out = open_run(random_run), tmp_path / "out"
    out.mkdir()
    hf_beit.write(run, out)
    config = out / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    if "use_mean_pooling" in change:
        with pytest.raises(ValueError, match="does not take all names"):
            hf_beit.check(run, out)
    else:
        assert hf_beit.check(run, out).summary()["max_abs"] > 1e-4


def test_vlmo_agrees_or_refuses_by_name(random_run, tmp_path):
    out = tmp_path / "out"
    done = convert(f"--from={random_run}", "--to=vlmo", f"--out={out}", "--verify")
    if random_run.name == "absolute":
        assert done.returncode == 2 and "model.positions=absolute" in done.stderr and not out.exists()
        return
    assert done.returncode == 0, done.stderr
    found = json.loads((out / "verify.json").read_text())
    assert found["max_abs"] < 5e-5 and {name.split("/")[0] for name in found["cases"]} == {"image", "text", "pair"}


def test_a_vlmo_file_starts_a_run(random_run, world, tmp_path):
    """Export, import, train one step from it: what VLMo knows is there bit for bit, the rest is fresh."""
    if random_run.name == "absolute":
        pytest.skip("VLMo has relative positions")
    convert(f"--from={random_run}", "--to=vlmo", f"--out={tmp_path / 'out'}")
    file = tmp_path / "out" / vlmo.WEIGHTS_FILE
    done = convert(f"--from={file}", "--format=vlmo", f"--out={tmp_path / 'start'}", "--image_size=32", "--codes=32")
    assert done.returncode == 0, done.stderr
    assert "matched  relative_position_bias_table" in done.stdout and "fresh    vision_head/kernel" in done.stdout
    assert (tmp_path / "start" / "import.txt").read_text().count("matched") == done.stdout.count("matched")
    before, after = open_run(random_run), open_run(tmp_path / "start")
    for name in ("text_embed/words", "encoder/block_1/attention/qkv", "encoder/block_2/vision_language/down/kernel"):
        rows = tiny.PIECES if name.endswith("words") else None
        assert (before.params[name][:rows] == after.params[name][:rows]).all()
    assert not (before.params["vision_head/kernel"] == after.params["vision_head/kernel"]).all()
