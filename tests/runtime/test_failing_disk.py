"""The disk of a run is full or fails: what ends the run, and that nothing is lost or moved."""

import errno
import shutil
from typing import NamedTuple

import pytest

from tests.runtime.test_survival import config_of, log_of, one_trace  # noqa: F401
from vlbeit_jax.data.bad_records import UNREADABLE, BadRecord
from vlbeit_jax.errors import Exit, StorageError
from vlbeit_jax.runtime.bad_data import explains_records
from vlbeit_jax.runtime.history import read_history
from vlbeit_jax.runtime.run_folder import config_changes, locked
from vlbeit_jax.runtime.start import train
from vlbeit_jax.storage import explains_storage
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.open_pretrain import OpenPretrain
from vlbeit_jax.training.checkpoint import Checkpointer

BROKEN = OSError(errno.EIO, "Input/output error")
NO_ROOM = OSError(errno.ENOSPC, "No space left on device")


class Usage(NamedTuple):
    total: int = 10**9
    used: int = 10**9
    free: int = 1000


def test_a_full_disk_at_the_start_is_told_and_the_next_start_goes_on(world, tmp_path, monkeypatch):
    run, config = tmp_path / "run", config_of(world, steps=2)
    with monkeypatch.context() as full:
        full.setattr("shutil.disk_usage", lambda place: Usage())
        with pytest.raises(StorageError, match="0.0 MB free, but a checkpoint needs .* make room"):
            train(config, run)

    def no_room(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:  # Nothing but the first file is there.
        shutil.rmtree(run)
        full.setattr("pathlib.Path.replace", no_room)
        with pytest.raises(StorageError, match=f"the disk of {run} is full .* make room"):
            train(config, run)
    assert not (run / "config.json").exists()
    (run / ".config.json.tmp").write_text("{")  # As kill -9 leaves it.
    train(config, run)
    assert Checkpointer(run / "checkpoints", read_only=True).latest() == 2


def unreadable():
    try:
        raise RuntimeError(
            "pread() failed: Input/output error [5] reading s/pairs-train.array_record"
        )
    except RuntimeError as error:
        raise BadRecord(UNREADABLE, "s/pairs-train.array_record, record 3 of 9") from error


def test_a_held_out_record_that_the_disk_cannot_read_is_not_bad_data(world, tmp_path, monkeypatch):
    """Log, history and exit code say the same. Launch scripts start the run again."""
    monkeypatch.setattr(OpenPretrain, "_evaluate", lambda *_: unreadable())
    config = config_of(world, steps=2, evaluate_every=2, evaluate_batches=1)
    with pytest.raises(StorageError, match="record 3 of 9; the disk fails: see .* run the same"):
        train(config, tmp_path / "run")
    end = read_history(tmp_path / "run")[-1]
    assert (end["ended"], end["code"], end["saved"]) == ("storage", Exit.STORAGE, 2)
    assert log_of(tmp_path / "run").splitlines()[-1].endswith("then run the same command again")


def test_records_that_the_disk_cannot_read_are_not_bad_data():
    with pytest.raises(StorageError, match="stream text, step 4: .*record 3 of 9; the disk fails"):
        with explains_records("text", 4):
            unreadable()


def test_a_configuration_that_the_disk_cannot_read_is_not_damaged(tmp_path):
    (tmp_path / "config.json").symlink_to("/proc/self/mem")
    with pytest.raises(StorageError, match="config.json fails: Input/output error"):
        config_changes(tmp_path, Config())


@pytest.mark.parametrize("raised", [NO_ROOM, BROKEN], ids=["full", "broken"])
def test_a_workdir_for_which_there_is_no_room_may_be_tried_again(tmp_path, monkeypatch, raised):
    def fails(*_, **__):
        raise raised

    monkeypatch.setattr("pathlib.Path.mkdir", fails)
    with pytest.raises(StorageError, match="run: cannot be written to .*; the disk .*run the same"):
        with explains_storage(tmp_path), locked(tmp_path / "run"):
            pass
