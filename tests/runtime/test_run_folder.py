"""The folder of a run: claimed by one process, its configuration kept."""

import errno
import json

import pytest

from tests import tiny
from vlbeit_jax.errors import UsageError
from vlbeit_jax.runtime import run_folder
from vlbeit_jax.runtime.start import train
from vlbeit_jax.tasks.runs import read_config


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


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("vlbeit_jax.places.fcntl.flock", no_locks)
    with pytest.raises(UsageError, match=r"has no locks .* mount it with locks \(Lustre"):
        with run_folder.locked(tmp_path / "run"):
            pass


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_damaged_configuration_is_a_usage_error(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UsageError, match="config"):
        read_config(tmp_path)
