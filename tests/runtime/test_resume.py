"""A run goes on exactly where it was, and only as the same run."""

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

from tests import tiny
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare.text_tokenizer import train_text_tokenizer
from vlbeit_jax.prepare.writer import write_set
from vlbeit_jax.runtime import run_folder
from vlbeit_jax.runtime.start import train
from vlbeit_jax.training.checkpoint import Checkpointer, check_same
from vlbeit_jax.training.saved_run import read_config
from vlbeit_jax.types import Kind


def weights(workdir, step=20):
    """Every array of a checkpoint, by name."""
    import orbax.checkpoint as ocp

    found = {}
    for item in ("params", "extra", "optimizer"):
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
    done = tiny.command(
        "vlbeit_jax.main", f"--config={straight / 'config_of_test.py'}", f"--workdir={workdir}"
    )
    assert done.returncode == 0, done.stderr
    assert "from step 10 to 20" in done.stderr
    assert_equal_bits(weights(workdir), weights(straight / "run"))
    lines = [
        [(line["step"], line["split"]) for line in tiny.metrics_of(folder)]
        for folder in (workdir, straight / "run")
    ]
    assert lines[0] == lines[1]


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


def test_config_json_changes_with_the_first_step(straight, tmp_path):
    """Not when a run is refused; a longer run says what has changed, and keeps it."""
    workdir = tmp_path / "run"
    shutil.copytree(straight / "run", workdir)
    before = (workdir / "config.json").read_text()
    arguments = [f"--config={straight / 'config_of_test.py'}", f"--workdir={workdir}"]
    done = tiny.command("vlbeit_jax.main", *arguments, "--config.run.seed=1")
    assert done.returncode == 2 and (workdir / "config.json").read_text() == before
    done = tiny.command("vlbeit_jax.main", *arguments, "--config.run.steps=21")
    assert done.returncode == 0, done.stderr
    assert "config.json changes with the first step:\n  run.steps: 20 in config" in done.stderr
    assert json.loads((workdir / "config.json").read_text())["run"]["steps"] == 21


def test_changes_of_a_configuration_are_named(world, tmp_path):
    config = tiny.pretrain_config(world)
    run_folder.write_config(tmp_path, config)
    assert run_folder.config_changes(tmp_path, config) == []
    saved = json.loads((tmp_path / "config.json").read_text())
    del saved["run"]["seed"]
    saved["mesh"]["model"] = 3  # A field of an older version.
    (tmp_path / "config.json").write_text(json.dumps(saved))
    assert run_folder.config_changes(tmp_path, config) == [
        "mesh.model: 3 in config.json, no such field now",
        "run.seed: no such field in config.json, 0 now",
    ]
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UsageError, match="config.json is damaged"):
        run_folder.config_changes(tmp_path, config)


@pytest.fixture(scope="module")
def long(world, tmp_path_factory):
    """Four hundred steps without a pause: long enough to be stopped on the way."""
    folder = tmp_path_factory.mktemp("long")
    config = tiny.config_file(
        tiny.pretrain_config(world, steps=400, log_every=100, checkpoint_every=100), folder
    )
    assert (
        tiny.command(
            "vlbeit_jax.main", f"--config={config}", f"--workdir={folder / 'run'}"
        ).returncode
        == 0
    )
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill"])
def test_a_run_that_was_stopped_ends_with_the_same_weights(long, tmp_path, stop):
    command = [
        sys.executable,
        "-m",
        "vlbeit_jax.main",
        f"--config={long / 'config_of_test.py'}",
        f"--workdir={tmp_path / 'run'}",
    ]
    environment = os.environ | {
        "XLA_FLAGS": os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=1"
    }
    process = subprocess.Popen(
        command, cwd=tiny.TOP, env=environment, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 200
    while not (tmp_path / "run" / "checkpoints" / "100").is_dir():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(stop)
    _, said = process.communicate()
    assert process.returncode == (130 if stop is signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in said
    assert stop is signal.SIGKILL or "run the same command again to resume from step" in said
    done = subprocess.run(command, cwd=tiny.TOP, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "from step 0" not in done.stderr
    assert_equal_bits(weights(tmp_path / "run", 400), weights(long / "run", 400))


def test_it_refuses_other_shapes_tokenizers_and_data_with_both_values(world, straight, tmp_path):
    config = tiny.pretrain_config(world)
    write_set(
        tmp_path / "pairs",
        Kind.PAIRS,
        tiny.pair_records(32, first=1000, side=36),
        shards=1,
        meta={"source": "", "licence": ""},
    )
    other_pairs = dataclasses.replace(config.data.pair, sources=(str(tmp_path / "pairs"),))
    train_text_tokenizer(tmp_path / "pieces", [str(world.texts)], tiny.PIECES, 10**6)
    changes = {
        r"model.ffn_width: the checkpoint has 64, this run has 96": {
            "model": dataclasses.replace(config.model, ffn_width=96)
        },
        r"data.pair: the checkpoint has \['\w+'\], this run has \['\w+'\]": {
            "data": dataclasses.replace(config.data, pair=other_pairs)
        },
        r"run.seed: the checkpoint has 0, this run has 5": {
            "run": dataclasses.replace(config.run, seed=5)
        },
    }
    for message, change in changes.items():
        with pytest.raises(UsageError, match=message):
            train(dataclasses.replace(config, **change), straight / "run")
    with pytest.raises(UsageError, match="packed with text tokenizer"):
        train(
            dataclasses.replace(
                config,
                data=dataclasses.replace(config.data, text_tokenizer=str(tmp_path / "pieces")),
            ),
            straight / "run",
        )
    assert Checkpointer(straight / "run" / "checkpoints", read_only=True).latest() == 20
    with pytest.raises(
        UsageError, match="text_tokenizer: the checkpoint has 'a', this run has 'b'"
    ):
        check_same(
            {"text_tokenizer": "a", "model.width": 3},
            {"text_tokenizer": "b", "model.width": 3},
            "RUN",
        )


def test_a_checkpoint_describes_itself(straight):
    described = Checkpointer(straight / "run" / "checkpoints", read_only=True).describe(20)
    assert described["step"] == 20
    assert described["config"] == json.loads((straight / "run" / "config.json").read_text())
    assert {
        "text_tokenizer",
        "visual_tokenizer",
        "data.image",
        "data.text",
        "data.pair",
    } <= described["must_match"].keys()
    assert described["versions"]["jax"] == jax.__version__


@pytest.mark.parametrize(
    ("last", "every", "kept"), [(2, 0, [5, 6]), (1, 3, [3, 6]), (2, 4, [4, 5, 6])]
)
def test_newest_and_every_multiple_are_kept(tmp_path, last, every, kept):
    checkpointer = Checkpointer(tmp_path, last, every)
    for step in range(1, 7):
        checkpointer.save(step, {"x": {"a": np.full(2, step)}}, {})
    checkpointer.close()
    assert sorted(int(path.name) for path in tmp_path.iterdir() if path.name.isdigit()) == kept


def test_a_cut_off_save_is_cleaned_up_and_does_not_count(tmp_path):
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(1, {"x": {"a": np.ones(2)}}, {})
    checkpointer.close()
    (tmp_path / "2.orbax-checkpoint-tmp").mkdir()
    again = Checkpointer(tmp_path)
    assert again.latest() == 1
    again.close()
    patience = time.monotonic() + 20  # It is removed in the background.
    while (tmp_path / "2.orbax-checkpoint-tmp").exists() and time.monotonic() < patience:
        time.sleep(0.05)
    assert not (tmp_path / "2.orbax-checkpoint-tmp").exists()


def test_a_foreign_folder_is_refused_and_left_alone(world, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="not the folder of a run"):
        train(tiny.pretrain_config(world), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_two_processes_do_not_share_a_folder(world, tmp_path):
    with run_folder.locked(tmp_path / "run"):
        with pytest.raises(UsageError, match="another process is training in it"):
            train(tiny.pretrain_config(world), tmp_path / "run")
    with run_folder.locked(tmp_path / "run"):
        pass  # Free again.


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_damaged_configuration_is_a_usage_error(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UsageError, match="config"):
        read_config(tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run_before_it_is_saved(world, tmp_path):
    config = tiny.pretrain_config(world, checkpoint_every=1)
    mad = dataclasses.replace(
        config, optimizer=dataclasses.replace(config.optimizer, peak_lr=1e30, clip_norm=0.0)
    )
    with pytest.raises(FloatingPointError, match="not finite"):
        train(mad, tmp_path / "run")
    for step in (
        int(path.name)
        for path in (tmp_path / "run" / "checkpoints").iterdir()
        if path.name.isdigit()
    ):
        assert all(np.isfinite(leaf).all() for leaf in weights(tmp_path / "run", step).values()), (
            step
        )
