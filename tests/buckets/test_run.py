"""A whole run in a bucket, with its data: killed, resumed, evaluated, reported, exported."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests import processes, tiny
from vlbeit_jax.places import copy_tree, place
from vlbeit_jax.training.checkpoint import Checkpointer

STEPS_AT_KILL, STEPS = 4, 24


def done(module: str, *arguments: object) -> subprocess.CompletedProcess:
    flags = {"XLA_FLAGS": tiny.one_device(os.environ["XLA_FLAGS"])}
    ended = processes.command(module, *arguments, environment=os.environ | flags, timeout=900)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended


def killed_after_a_save(line: list[str], checkpoints) -> int:
    """Starts a command and kills it once the run has saved some steps; returns the newest."""
    environment = os.environ | {"XLA_FLAGS": tiny.one_device(os.environ["XLA_FLAGS"])}
    reading = Checkpointer(checkpoints, read_only=True)
    process = subprocess.Popen(line, cwd=tiny.TOP, env=environment)
    try:
        while (reading.latest() or 0) < STEPS_AT_KILL:
            assert process.poll() is None
            time.sleep(0.2)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return reading.latest() or 0


def arrays(checkpoints, step: int) -> dict[str, np.ndarray]:
    leaves = Checkpointer(checkpoints, read_only=True).leaves(step, "params")
    return {name: leaves[name] for name in leaves.facts}


@pytest.mark.slow
def test_a_run_lives_in_a_bucket(cloud, world, tmp_path):
    """It ends with the arrays of an undisturbed run on a disk, bit for bit."""
    home = place(f"{cloud.address}/whole")
    for name in ("pairs", "tokens", "text_tokenizer", "vqkd"):
        copy_tree(getattr(world, name), home / "world" / name)
    config = tiny.pretrain_config(
        tiny.world_in(home / "world"), steps=STEPS, checkpoint_every=4, log_every=1
    )
    run, file = home / "run", tiny.config_file(config, tmp_path)
    line = [sys.executable, "-m", "vlbeit_jax.main", f"--config={file}", f"--workdir={run}"]
    saved = killed_after_a_save(line, run / "checkpoints")
    assert (run / ".lock").is_file()  # Of the killed process, and so no obstacle.
    assert saved < STEPS
    ended = done(*line[2:])
    assert f"step {saved}" in ended.stderr or f"at {saved}" in ended.stderr, ended.stderr[:3000]
    assert not (run / ".lock").exists()
    lines = [json.loads(each) for each in (run / "metrics.jsonl").read_text().splitlines()]
    assert [each["step"] for each in lines if each["split"] == "train"] == [*range(1, STEPS + 1)]
    events = [json.loads(each) for each in (run / "runs.jsonl").read_text().splitlines()]
    assert [each["event"] for each in events].count("started") == 2
    assert any(path.stat().st_size for path in (run / "tensorboard").iterdir())

    local = tmp_path / "run"
    done("vlbeit_jax.main", f"--config={file}", f"--workdir={local}")
    here, there = (arrays(each / "checkpoints", STEPS) for each in (local, run))
    assert here.keys() == there.keys() and all((here[name] == there[name]).all() for name in here)

    shown = done("vlbeit_jax.inspect", run).stdout
    assert f"step {STEPS}" in shown and "starts: 2" in shown
    data = f"--data={home / 'world' / 'pairs'}"
    done(
        "vlbeit_jax.evaluate",
        f"--from={run}",
        data,
        f"--json={home / 'evaluation.json'}",
        f"--report={home / 'report'}",
    )
    assert json.loads((home / "evaluation.json").read_text())
    assert "</html>" in (home / "report" / "report.html").read_text()
    done("vlbeit_jax.convert", f"--from={run}", "--to=torch", f"--out={home / 'export'}", data)
    manifest = json.loads((home / "export" / "manifest.json").read_text())
    for name, entry in manifest.items():
        content = (home / "export" / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"], name
