"""Runs log how fast they are, traces are written, the benchmark times the step."""

import json
import shutil
import subprocess
import time
import types

import jax
import pytest

from tests import tiny
from tools.benchmark_entries import problems
from vlbeit_jax.cost.flops import StepFlops
from vlbeit_jax.runtime import machine, speed
from vlbeit_jax.runtime.timer import Timer

SMALL_TOKENIZER = ("image_size=32", "patch_size=8", "codes=32", "width=32", "heads=2")


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("NVIDIA L4, 23034, 550.54\n", {"card": "NVIDIA L4", "memory_gib": 23034 / 1024}),
        ("NVIDIA GB10, [N/A], 580.82\nother, 1, 2\n", {"card": "NVIDIA GB10"}),
    ],
)
def test_a_card_with_and_without_memory_of_its_own(said, found, monkeypatch):
    done = subprocess.CompletedProcess([], 0, said)
    monkeypatch.setattr(subprocess, "run", lambda *given, **options: done)
    card = machine.card()
    assert card.pop("driver") in said and card == found


def test_the_peak_of_a_cpu_is_measured():
    assert 1e9 < speed.peak_here().flops_per_second < 1e14


def test_a_card_that_is_not_in_the_table_has_no_peak(monkeypatch):
    """A product that is measured on it would say little, and logs would show an MFU above 1."""
    card = types.SimpleNamespace(device_kind="NVIDIA GeForce RTX 4070 Ti")
    monkeypatch.setattr(jax, "devices", lambda: [card] * 8)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert speed.peak_here().flops_per_second is None
    timer = Timer(speed.peak_here().flops_per_second)
    timer.count(StepFlops(model=1.0, frozen=1.0, tokens=1, samples=1))
    assert "mfu" not in timer.summary() and "mfu" in Timer(1.0).summary()
    monkeypatch.setattr(card, "device_kind", "NVIDIA GeForce RTX 4090")
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    assert speed.peak_here().flops_per_second == 8 * 165.2e12


def test_every_line_of_a_run_says_how_fast_it_is(world, tmp_path):
    run = tmp_path / "run"
    values = tiny.pretrain_config(world, schedule="pair", steps=4, log_every=2, checkpoint_every=2)
    config = tiny.config_file(values, tmp_path)
    began = time.monotonic()
    arguments = [f"--config={config}", f"--workdir={run}", "--profile_steps=1:3"]
    done = tiny.command("vlbeit_jax.main", *arguments)
    wall = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    lines = tiny.metrics_of(run)
    assert [line["step"] for line in lines] == [2, 4]
    for line in lines:
        assert 0 < line["mfu"] < 1 and 0 < line["goodput"] < 1
        assert 0 <= line["data_wait"] < 1 and 0 <= line["checkpoint_wait"] < 1
        assert line["samples_per_second"] * line["seconds"] > 8 and line["seconds"] < wall
        assert line["tokens_per_second"] > line["samples_per_second"]
        assert line["model_flops_per_second"] > 0
    (trace,) = (run / "profile").rglob("*.xplane.pb")
    assert trace.stat().st_size > 1000


@pytest.mark.parametrize("steps", ["3", "5:5", "a:b", "7:3"])
def test_wrong_steps_to_profile_are_a_usage_error(steps, tmp_path):
    arguments = ["--config=configs/sample.py", f"--workdir={tmp_path / 'run'}"]
    done = tiny.command("vlbeit_jax.main", *arguments, f"--profile_steps={steps}")
    assert done.returncode == 2 and "FIRST:END" in done.stderr and not (tmp_path / "run").exists()


@pytest.mark.parametrize("source", ["synthetic", pytest.param("real", marks=pytest.mark.slow)])
def test_the_benchmark_times_the_step(world, tmp_path, source):
    schedule = {"synthetic": "image+text+pair", "real": "text+pair"}[source]
    config = tiny.config_file(tiny.pretrain_config(world, schedule=schedule), tmp_path)
    out = tmp_path / "speed.json"
    done = tiny.command(
        "vlbeit_jax.benchmark",
        f"--config={config}",
        "--steps=3",
        "--warmup=1",
        f"--json={out}",
        f"--input={source}",
        "--notes=beside other tests",
        *(f"--config.task.tokenizer_model.{field}" for field in SMALL_TOKENIZER),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    seconds = found["step_seconds"]
    assert seconds["min"] <= seconds["median"] <= seconds["max"] and found["steps"] == 3
    mfu = found["model_flops"] / seconds["median"] / found["peak_flops_per_second"]
    assert found["mfu"] == pytest.approx(mfu)
    assert (found["data_wait"] > 1e-4) == (source == "real")
    assert not problems(found)  # It is an entry of docs/benchmarks as it is.
    assert found["config"] == str(config) and found["notes"] == "beside other tests"
    assert found["changes"].get("task.schedule", "image+text+pair") == schedule
    assert found["changes"]["task.model.width"] == tiny.pretrain_config(world).task.model.width
    assert "task.image.flip" not in found["changes"]
    # The command's peak memory is that of a process that has imported JAX.
    assert 1e8 < found["peak_memory_bytes"] < 1e11 and found["machine"]["cores"] >= 1
    assert f"--input={source} '--notes=beside other tests'" in found["command"]


@pytest.mark.slow
def test_compiled_steps_are_kept_unless_told_otherwise(world, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    # By default JAX keeps nothing that compiles in less than a second.
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    config = tiny.config_file(tiny.pretrain_config(world, steps=3, schedule="text"), tmp_path)
    kept = {
        "auto": tmp_path / "home" / "vlbeit_jax",
        str(tmp_path / "own"): tmp_path / "own",
        "": tmp_path / "home",
    }
    for number, (place, folder) in enumerate(kept.items()):
        done = tiny.command(
            "vlbeit_jax.main",
            f"--config={config}",
            f"--workdir={tmp_path / str(number)}",
            f"--config.run.compilation_cache={place}",
        )
        assert done.returncode == 0, done.stderr
        assert bool(list(folder.glob("cpu-*/jit_train_step*"))) == bool(place)
        shutil.rmtree(folder, ignore_errors=True)
