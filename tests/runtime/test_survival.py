"""A run goes on after damage, loss and divergence, or says why it cannot; nothing is deleted."""

import errno
import json
import shutil
from types import SimpleNamespace
from typing import Any, cast

import jax
import pytest

from tests import tiny
from tests.kept_steps import kept_steps
from tests.runtime.test_resume import assert_equal_bits, weights
from vlbeit_jax.data.bad_records import BadRecord
from vlbeit_jax.data.sampling import TrainingExamples
from vlbeit_jax.errors import BadData, Damaged, Diverged, StorageError
from vlbeit_jax.runtime import history, resume
from vlbeit_jax.runtime.hosts import Hosts
from vlbeit_jax.runtime.metrics_file import read_metrics
from vlbeit_jax.runtime.run_page import damaged_steps, page
from vlbeit_jax.runtime.start import train
from vlbeit_jax.tasks.open_pretrain import OpenPretrain
from vlbeit_jax.training import saved_step, sealed
from vlbeit_jax.training.checkpoint import Checkpointer
from vlbeit_jax.training.saved_step import SavedStep


def config_of(world, **run):
    values = {"steps": 8, "checkpoint_every": 2, "log_every": 2, "keep_last": 2} | run
    return tiny.pretrain_config(world, schedule="text", **values)


@pytest.fixture(scope="module", autouse=True)
def one_trace():
    """Most runs of this file have the configuration of ``finished``."""
    with kept_steps():
        yield


@pytest.fixture(scope="module")
def finished(one_trace, world, tmp_path_factory):
    """Eight steps, of which 6 and 8 are kept."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(config_of(world), folder)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def damage(run, step, item="params"):
    """Flips a bit here and there in the largest file, of which a part is not used."""
    files = [path for path in (run / "checkpoints" / str(step) / item).rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    for byte in range(0, len(content), 97):
        content[byte] ^= 8
    largest.write_bytes(content)


def files_of(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def log_of(run):
    return (run / "log.txt").read_text()


def test_a_damaged_step_is_moved_aside_and_the_one_before_it_is_used(world, finished, run):
    damage(run, 8)
    hurt = files_of(run / "checkpoints" / "8")
    train(config_of(world), run)
    assert files_of(run / "checkpoints.damaged" / "8") == hurt
    said = log_of(run).partition("took")[2]
    assert "checkpoints/8/params is damaged: " in said
    assert f"step 8 is moved to {run / 'checkpoints.damaged' / '8'}" in said
    assert "resumes at step 6 of 8" in said
    assert_equal_bits(weights(run, 8), weights(finished, 8))
    assert [line["step"] for line in read_metrics(run)] == [2, 4, 6, 8]


def test_if_every_step_is_damaged_nothing_starts_anew(world, run):
    """Not even the second time, when they have been moved."""
    damage(run, 6)
    shutil.rmtree(run / "checkpoints" / "8" / "optimizer")
    before = (run / "metrics.jsonl").read_text()
    for _ in range(2):
        with pytest.raises(Damaged, match=r"every checkpoint of .* \(steps 6, 8\); put a copy"):
            train(config_of(world), run)
    assert (run / "metrics.jsonl").read_text() == before
    assert sorted(path.name for path in (run / "checkpoints.damaged").iterdir()) == ["6", "8"]


def test_a_host_may_see_a_step_that_another_one_has_moved(monkeypatch, tmp_path):
    """As with NFS, whose lists of folders are half a minute old."""
    seen = cast(Any, SimpleNamespace(steps=lambda: [6, 8], step=lambda step: SavedStep(step)))
    tried = []

    def restored(run, step, *_):
        tried.append(step.folder)
        return "state" if step.folder == 6 else None

    monkeypatch.setattr(resume, "restored", restored)
    monkeypatch.setattr(resume, "set_aside", lambda *_: None)
    monkeypatch.setattr(SavedStep, "has_digests", True)
    run = cast(Any, SimpleNamespace(hosts=Hosts(1), workdir=tmp_path))
    found = resume.resume(run, seen, cast(Any, None))
    assert (found.step, found.state, tried) == (6, "state", [8, 6])


def test_one_bad_place_of_a_disk_costs_a_step_and_a_disk_that_fails_costs_none(
    world, run, monkeypatch
):
    """The step with the unreadable file is moved aside, unless that fails as well."""
    path = run / "checkpoints" / "8" / "params" / "_METADATA"
    path.unlink()
    path.symlink_to("/proc/self/mem")  # Linux answers EIO where this file is read from its start.

    def fails(*_):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken, pytest.raises(StorageError, match=f"disk of {run} fails"):
        broken.setattr("pathlib.Path.rename", fails)
        train(config_of(world), run)
    assert (run / "checkpoints" / "8").is_dir()
    train(config_of(world), run)
    assert (run / "checkpoints.damaged" / "8" / "params" / "_METADATA").is_symlink()
    said = log_of(run).partition("took")[2]
    assert "list of arrays cannot be read: OSError: [Errno 5] Input/output error" in said
    assert "resumes at step 6 of 8" in said


def test_storage_that_is_away_costs_no_step(world, run, monkeypatch):
    """It may come back; the same command then goes on."""

    def unmounted(*_):
        raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")

    with monkeypatch.context() as away, pytest.raises(StorageError, match="checkpoints/8 fails: T"):
        away.setattr(saved_step, "_parsed", unmounted)
        train(config_of(world), run)
    assert not (run / "checkpoints.damaged").exists()
    train(config_of(world), run)
    assert "already finished, at step 8 of 8" in log_of(run)


@pytest.mark.parametrize("what", ["folder", "steps", "old run"])
def test_lost_checkpoints_are_not_taken_for_a_new_run(world, run, what):
    shutil.rmtree(run / "checkpoints")
    fact = "is missing, but the run has saved step 8"
    if what == "steps":
        (run / "checkpoints").mkdir()
        fact = "has no step, but the run has saved step 8"
    if what == "old run":
        (run / history.FILE).unlink()
        fact = "is missing, but metrics.jsonl is at step 8"
    before = files_of(run)
    with pytest.raises(Damaged, match=f"checkpoints {fact}; .* erase its figures; put"):
        train(config_of(world), run)
    assert files_of(run) == before


def test_a_step_without_a_digest_is_used_and_the_message_says_so(world, run, monkeypatch):
    """As a run of an earlier version has it."""
    shutil.rmtree(run / "checkpoints" / "6")
    path = run / "checkpoints" / "8" / "description" / "metadata"
    content = json.loads(path.read_text()) | {"format": 2}
    del content[sealed.ARRAYS], content[sealed.SEAL]
    path.write_text(json.dumps(content))
    train(config_of(world), run)
    assert "step 8 has no digest, because an earlier version saved it" in log_of(run)
    shown = page(run, damaged_steps(run, arrays=True))
    assert "no digest, an earlier version saved it, format 2" in shown


def test_damaged_lines_of_metrics_are_set_aside_and_reported(world, run, capsys):
    path = run / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")
    lines[1:2] = [lines[1], b"", b"\0\0\0", b'{"step": 5}', b"[1]"]
    path.write_bytes(b"\n".join(lines))
    assert [line["step"] for line in read_metrics(run)] == [2, 4, 6, 8]
    assert "line 3, 4, 5, 6 cannot be read; left out" in capsys.readouterr().err
    shutil.rmtree(run / "checkpoints" / "8")
    train(config_of(world), run)
    assert [line["step"] for line in tiny.metrics_of(run)] == [2, 4, 6, 8]
    kept = (run / "metrics.damaged.txt").read_bytes()
    assert kept == b'\n\0\0\0\n{"step": 5}\n[1]\n'
    assert "line 3, 4, 5, 6 cannot be read; moved to metrics.damaged.txt" in log_of(run)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # It is infinite in float32.
@pytest.mark.parametrize("rate", [pytest.param(1e39, marks=pytest.mark.slow), 1e30])
def test_a_ruined_network_is_never_saved(world, tmp_path, rate):
    """Not after an update whose loss and gradients were finite."""
    config = config_of(world, checkpoint_every=1, keep_last=9)
    config = tiny.changed(config, optimizer={"peak_lr": rate, "clip_norm": 0.0, "warmup_steps": 2})
    with pytest.raises(Diverged) as raised:
        train(config, tmp_path / "run")
    for step in Checkpointer(tmp_path / "run" / "checkpoints", read_only=True).steps():
        assert all(abs(leaf).max() < 1e18 for leaf in weights(tmp_path / "run", step).values())
    assert f"error: {raised.value}" in log_of(tmp_path / "run")
    end = history.read_history(tmp_path / "run")[-1]
    assert (end["ended"], end["code"]) == ("diverged", 67)
    if rate == 1e39:  # The updates were refused, and each names its records.
        refused = (tmp_path / "run" / "refused.jsonl").read_text().splitlines()
        named = [json.loads(line) for line in refused]
        assert len(named) >= 3 and len(named[0]["records"]["text"]) == 8
        assert named[0]["records"]["text"][0].startswith("train/")
        lines = [line for line in tiny.metrics_of(tmp_path / "run") if line["split"] == "refused"]
        assert [line["step"] for line in lines] == [each["step"] for each in named]


def test_a_bad_record_ends_the_run_with_its_own_code(world, tmp_path, monkeypatch):
    def broken(self, index):
        raise BadRecord("bad_text", "record text/7: its text cannot be read")

    def defect(self, index):
        raise ValueError("no record's fault")

    monkeypatch.setattr(TrainingExamples, "replacing", broken)
    with pytest.raises(BadData, match="stream text, step 1: .* record text/7"):
        train(config_of(world), tmp_path / "run")
    monkeypatch.setattr(TrainingExamples, "replacing", defect)
    with pytest.raises(ValueError, match="no record's fault"):
        train(config_of(world), tmp_path / "run")


def test_an_evaluation_that_fails_costs_no_step_and_no_figure(world, tmp_path, monkeypatch):
    """The step is saved before. The next start computes the figures that are missing."""
    config = config_of(world, checkpoint_every=100, evaluate_every=3, evaluate_batches=1)
    evaluated = []

    def figures(self, data, place, state, frozen):
        evaluated.append(int(state.step))
        if len(evaluated) in (2, 4):
            raise BadData("a held-out record")
        return {
            "mlm/accuracy": sum(float(abs(leaf).sum()) for leaf in jax.tree.leaves(state.params))
        }

    monkeypatch.setattr(OpenPretrain, "_evaluate", figures)
    for saved in (6, 8):
        with pytest.raises(BadData):
            train(config, tmp_path / "run")
        assert Checkpointer(tmp_path / "run" / "checkpoints", read_only=True).latest() == saved
    for _ in range(2):
        train(config, tmp_path / "run")
    assert evaluated == [3, 6, 6, 8, 8]
    assert "step 6 was not evaluated to the end; that is done now" in log_of(tmp_path / "run")
    lines = [line for line in tiny.metrics_of(tmp_path / "run") if line["split"] == "validation"]
    assert [line["step"] for line in lines] == [3, 6, 8]
    assert len({line["mlm/accuracy"] for line in lines}) == 3


@pytest.mark.slow
def test_the_page_of_a_run_shows_starts_steps_and_damage(world, run):
    shutil.rmtree(run / "checkpoints" / "8")
    train(config_of(world), run)
    found = damaged_steps(run, arrays=False)
    assert found == {6: "", 8: ""}
    shown = page(run, found)
    assert "task pretrain, text, 8 steps" in shown and "starts: 2" in shown
    assert "from step 0 on 1 process(es): finished at step 8" in shown
    assert "from step 6 on 1 process(es): finished at step 8" in shown
    assert "3 trees with digests, format 3" in shown and "goodput" in shown
    damage(run, 8)
    assert damaged_steps(run, arrays=False)[8] == ""  # Numbers are not read.
    found = damaged_steps(run, arrays=True)
    assert found[6] == "" and "8/params is damaged" in found[8]
    shutil.rmtree(run / "checkpoints" / "6" / "params")
    assert "params missing" in damaged_steps(run, arrays=False)[6]
    done = tiny.command("vlbeit_jax.inspect", run, "--verify")
    assert done.returncode == 66 and "error: " in done.stderr and "step 8" in done.stdout
