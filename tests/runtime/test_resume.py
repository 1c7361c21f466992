"""A run resumes exactly where it stopped, and only as the same run."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from examples import add_a_task
from tests import tiny
from vlbeit_jax import tasks
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.text_tokenizer import train_text_tokenizer
from vlbeit_jax.prepare.writer import write_set
from vlbeit_jax.runtime.identity import check_same
from vlbeit_jax.runtime.start import train
from vlbeit_jax.training.checkpoint import Checkpointer
from vlbeit_jax.types import Kind


def weights(workdir, step=20):
    """Every array of a checkpoint, by name."""
    import orbax.checkpoint as ocp

    found = {}
    for item in ("params", "model_state", "optimizer"):
        tree = ocp.StandardCheckpointer().restore(
            (workdir / "checkpoints" / str(step) / item).resolve()
        )
        found |= {
            f"{item}{jax.tree_util.keystr(path)}": np.asarray(leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }
    return found


def assert_equal_bits(found, wanted):
    assert found.keys() == wanted.keys()
    for name, leaf in wanted.items():
        assert leaf.tobytes() == found[name].tobytes(), name


@pytest.fixture(scope="module")
def straight(world, tmp_path_factory):
    """Twenty steps without a pause, in a process of their own."""
    folder = tmp_path_factory.mktemp("straight")
    config = tiny.config_file(tiny.pretrain_config(world, keep_last=2), folder)
    done = tiny.command("vlbeit_jax.main", f"--config={config}", f"--workdir={folder / 'run'}")
    assert done.returncode == 0, done.stderr
    return folder


def test_ten_steps_and_ten_in_a_new_process_equal_twenty(straight, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(straight / "run", workdir)
    shutil.rmtree(workdir / "checkpoints" / "20")
    config = f"--config={straight / 'config_of_test.py'}"
    done = tiny.command("vlbeit_jax.main", config, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    assert "resumes at step 10 of 20" in done.stderr
    assert_equal_bits(weights(workdir), weights(straight / "run"))
    lines = [
        [(line["step"], line["split"]) for line in tiny.metrics_of(folder)]
        for folder in (workdir, straight / "run")
    ]
    assert lines[0] == lines[1]


@pytest.mark.slow  # Another process of the same seed also takes the steps of the test above.
def test_a_second_run_of_the_same_seed_is_identical_and_of_another_is_not(straight, tmp_path):
    arguments = [f"--config={straight / 'config_of_test.py'}", f"--workdir={tmp_path / 'again'}"]
    assert tiny.command("vlbeit_jax.main", *arguments).returncode == 0
    assert_equal_bits(weights(tmp_path / "again"), weights(straight / "run"))
    arguments[1] = f"--workdir={tmp_path / 'other'}"
    assert tiny.command("vlbeit_jax.main", *arguments, "--config.run.seed=1").returncode == 0
    with pytest.raises(AssertionError):
        assert_equal_bits(weights(tmp_path / "other"), weights(straight / "run"))


def files_of(workdir):
    """Content of every file but the text log, by path."""
    return {
        path.relative_to(workdir): path.read_bytes()
        for path in workdir.rglob("*")
        if path.is_file() and path.name not in ("log.txt", ".lock")
    }


def test_a_finished_run_says_so_and_changes_nothing(straight):
    """Even if the configuration is another one now; the run says in which fields."""
    run, before = straight / "run", files_of(straight / "run")
    arguments = [f"--config={straight / 'config_of_test.py'}", f"--workdir={run}"]
    done = tiny.command("vlbeit_jax.main", *arguments)
    assert done.returncode == 0 and "already finished, at step 20 of 20" in done.stderr
    assert "config.json" not in done.stderr and files_of(run) == before
    done = tiny.command("vlbeit_jax.main", *arguments, "--config.optimizer.weight_decay=0.5")
    assert done.returncode == 0 and "config.json still has the values of its" in done.stderr
    assert "  optimizer.weight_decay: 0.05 in config.json, 0.5 now" in done.stderr
    assert files_of(run) == before


def test_config_json_changes_with_the_first_step(monkeypatch, tmp_path):
    """Not when a run is refused; a longer run says what has changed, and keeps it."""
    monkeypatch.setitem(tasks.TASKS, "fit_line", "examples.add_a_task:FitLine")
    run, short = tmp_path / "run", add_a_task.config(4)
    train(short, run)
    before = (run / "config.json").read_text()
    with pytest.raises(UsageError, match="run.seed: the checkpoint has 0, this run has 1"):
        train(tiny.changed(short, run={"seed": 1}), run)
    assert (run / "config.json").read_text() == before
    train(add_a_task.config(5), run)
    said = (run / "log.txt").read_text()
    assert "config.json changes with the first step:\n  run.steps: 4 in config" in said
    assert json.loads((run / "config.json").read_text())["run"]["steps"] == 5


@pytest.fixture(scope="module")
def long(world, tmp_path_factory):
    """Two hundred steps without a pause: long enough to be stopped on the way."""
    folder = tmp_path_factory.mktemp("long")
    values = tiny.pretrain_config(world, steps=200, log_every=50, checkpoint_every=50)
    config = tiny.config_file(values, folder)
    done = tiny.command("vlbeit_jax.main", f"--config={config}", f"--workdir={folder / 'run'}")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill"])
def test_a_run_that_was_stopped_ends_with_the_same_weights(long, tmp_path, stop):
    run, config = tmp_path / "run", long / "config_of_test.py"
    command = [sys.executable, "-m", "vlbeit_jax.main", f"--config={config}", f"--workdir={run}"]
    flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=1"
    environment = os.environ | {"XLA_FLAGS": flags}
    process = subprocess.Popen(
        command, cwd=tiny.TOP, env=environment, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 200
    while not (run / "checkpoints" / "50").is_dir():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(stop)
    _, said = process.communicate()
    assert process.returncode == (130 if stop is signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in said
    assert stop is signal.SIGKILL or "run the same command again to resume from step" in said
    done = subprocess.run(command, cwd=tiny.TOP, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "resumes at step" in done.stderr
    assert_equal_bits(weights(run, 200), weights(long / "run", 200))


def test_another_seed_model_tokenizer_or_data_set_is_refused(world, straight, tmp_path):
    """The message has both values; the run is left as it was."""
    config, meta = tiny.pretrain_config(world), {"source": "", "licence": ""}
    records = tiny.pair_records(32, first=1000, side=36)
    write_set(tmp_path / "pairs", Kind.PAIRS, records, shards=1, meta=meta)
    train_text_tokenizer(tmp_path / "pieces", [str(world.texts)], tiny.PIECES, 10**6)
    for message, changed in (
        (
            "task.model.ffn_width: the checkpoint has 64, this run has 96",
            tiny.changed(config, task={"model": {"ffn_width": 96}}),
        ),
        (
            r"task.pair.sources: the checkpoint has \['\w+'\], this run has \['\w+'\]",
            tiny.changed(config, task={"pair": {"sources": (str(tmp_path / "pairs"),)}}),
        ),
        (
            "task.image.flip: the checkpoint has 0.5, this run has 0.25",
            tiny.changed(config, task={"image": {"flip": 0.25}}),
        ),
        (
            "run.seed: the checkpoint has 0, this run has 5",
            dataclasses.replace(config, run=dataclasses.replace(config.run, seed=5)),
        ),
        (
            "optimizer.trainable: the checkpoint has 'all', this run has 'top:1'",
            tiny.changed(config, optimizer={"trainable": "top:1"}),
        ),
        (
            "packed with text tokenizer",
            tiny.changed(config, task={"text_tokenizer": str(tmp_path / "pieces")}),
        ),
    ):
        with pytest.raises(UsageError, match=message):
            train(changed, straight / "run")
    assert Checkpointer(straight / "run" / "checkpoints", read_only=True).latest() == 20


def test_a_difference_is_named_with_both_values():
    saved, given = {"tokenizer": "a", "width": 3}, {"tokenizer": "b", "width": 3}
    check_same(saved, saved, "RUN")
    with pytest.raises(UsageError) as caught:
        check_same(saved, given, "RUN")
    assert "tokenizer: the checkpoint has 'a', this run has 'b'" in str(caught.value)
    assert "width" not in str(caught.value)


def test_a_run_of_another_task_is_named_without_a_list_of_settings():
    saved = {"task.kind": "pretrain", "task.schedule": "image", "task.text.batch_size": 8}
    with pytest.raises(UsageError, match="of task 'pretrain', but .* 'vqkd'; choose") as raised:
        check_same(saved, {"task.kind": "vqkd", "task.schedule": "image"}, "RUN")
    assert "batch_size" not in str(raised.value)


def test_a_checkpoint_describes_itself(straight):
    described = Checkpointer(straight / "run" / "checkpoints", read_only=True).describe(20)
    assert described["step"] == 20
    assert described["config"] == json.loads((straight / "run" / "config.json").read_text())
    names = {"text_tokenizer", "visual_tokenizer"}
    names |= {f"task.{stream}.sources" for stream in ("image", "text", "pair")}
    assert names <= described["must_match"].keys()
    assert described["versions"]["jax"] == jax.__version__


@pytest.mark.slow  # tests/runtime/test_survival.py has a limit for every number that is saved.
def test_a_loss_that_is_not_finite_stops_the_run_and_every_checkpoint_is_good(world, tmp_path):
    run, config = tmp_path / "run", tiny.pretrain_config(world, schedule="pair", checkpoint_every=1)
    optimizer = dataclasses.replace(config.optimizer, peak_lr=1e30, clip_norm=0.0)
    with pytest.raises(FloatingPointError, match="not finite"):
        train(dataclasses.replace(config, optimizer=optimizer), run)
    saved = [int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdigit()]
    assert saved
    for step in saved:
        assert all(np.isfinite(leaf).all() for leaf in weights(run, step).values()), step
