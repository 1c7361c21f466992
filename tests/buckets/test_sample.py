"""The sample's own configuration, data and tokenizers in a bucket, from texts to an export."""

import hashlib
import json
import sys

import pytest

from tests.buckets.test_run import done, killed_after_a_save
from vlbeit_jax.data.source import SAMPLE_FOLDER as DATA
from vlbeit_jax.folders import SAMPLE_FOLDER as MODEL
from vlbeit_jax.places import copy_tree, place
from vlbeit_jax.training.checkpoint import Checkpointer

STEPS = 16
# gcsfs gives aiohttp whole bodies of up to 5 MiB, and aiohttp warns above 1 MiB.
pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")


@pytest.mark.slow
def test_the_sample_lives_in_a_bucket(cloud):
    home = place(f"{cloud.address}/sample")
    for folder in (DATA / "pairs", DATA / "texts", MODEL / "text_tokenizer"):
        copy_tree(folder, home / folder.name)
    copy_tree(MODEL / "visual_tokenizer", home / "vqkd")
    tokenizer, tokens = home / "text_tokenizer", home / "tokens"
    texts = [f"--input={home / 'texts'}", f"--text_tokenizer={tokenizer}", "--length=64"]
    done("vlbeit_jax.prepare", "--kind=tokens", *texts, f"--out={tokens}")

    run, pairs = home / "run", f"--data={home / 'pairs'}"
    flags = {
        "task.text_tokenizer": tokenizer,
        "task.visual_tokenizer": home / "vqkd",
        "task.text.sources": (str(tokens),),
        "task.image.sources": (str(home / "pairs"),),
        "task.pair.sources": (str(home / "pairs"),),
        "run.steps": STEPS,
        "run.log_every": 4,
        "run.evaluate_every": 8,
        "run.evaluate_batches": 1,
        "run.checkpoint_every": 4,
        "optimizer.warmup_steps": 4,
    }
    line = ["vlbeit_jax.main", "--config=configs/sample.py", f"--workdir={run}"]
    line += [f"--config.{name}={value}" for name, value in flags.items()]
    saved = killed_after_a_save([sys.executable, "-m", *line], run / "checkpoints")
    assert 4 <= saved < STEPS and (run / ".lock").is_file()
    ended = done(*line)
    assert f"step {saved}" in ended.stderr or f"at {saved}" in ended.stderr, ended.stderr[:3000]
    assert Checkpointer(run / "checkpoints", read_only=True).latest() == STEPS
    lines = [json.loads(each) for each in (run / "metrics.jsonl").read_text().splitlines()]
    trained = [each for each in lines if each["split"] == "train"]
    assert [each["step"] for each in trained] == [4, 8, 12, 16]
    parts = ("mim", "mlm", "mvlm_image", "mvlm_text")
    losses = [[each[f"{part}/loss"] for part in parts] for each in trained]
    assert all(last < first for first, last in zip(losses[0], losses[-1], strict=True)), losses
    assert {each["step"] for each in lines if each["split"] == "validation"} == {8, 16}

    done("vlbeit_jax.evaluate", f"--from={run}", pairs, "--draws=1", f"--json={home / 'e.json'}")
    assert json.loads((home / "e.json").read_text())
    done("vlbeit_jax.convert", f"--from={run}", "--to=torch", f"--out={home / 'export'}")
    manifest = json.loads((home / "export" / "manifest.json").read_text())
    assert manifest
    for name, entry in manifest.items():
        content = (home / "export" / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"], name
    assert "steps" in done("vlbeit_jax.inspect", run).stdout
