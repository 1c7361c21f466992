"""A folder appears whole or not at all."""

import errno
import os
import subprocess
import sys
import threading

import pytest

from tests.processes import command
from vlbeit_jax.errors import StorageError, UsageError
from vlbeit_jax.folders import SAMPLE_FOLDER, locked, published, run_folder
from vlbeit_jax.places import appearing
from vlbeit_jax.training.checkpoint import Checkpointer


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), StorageError),
        (RuntimeError("UNKNOWN: write() failed: No space left on device"), StorageError),
        (RuntimeError("another"), RuntimeError),
        (OSError(errno.EIO, "Input/output error"), StorageError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
    ids=["full", "full by ArrayRecord", "another", "broken", "Ctrl-C"],
)
def test_nothing_is_left_of_what_was_cut_off(tmp_path, raised, seen):
    """A full disk is the user's to mend, and told in one message."""
    with pytest.raises(
        seen,
        match="No space left on device, and nothing is left of it|fails: Input/output error"
        if seen is StorageError
        else None,
    ):
        with published(tmp_path / "out") as folder:
            (folder / "half").write_bytes(b"1")
            raise raised
    assert not list(tmp_path.iterdir())


def test_an_empty_folder_may_become_it_and_a_full_one_may_not(tmp_path):
    (tmp_path / "out").mkdir()
    for content in (b"1", b"2"):
        if content == b"2":
            with pytest.raises(UsageError, match="out exists already"), published(tmp_path / "out"):
                pass
        else:
            with published(tmp_path / "out") as folder:
                (folder / "whole").write_bytes(content)
        assert [path.read_bytes() for path in (tmp_path / "out").iterdir()] == [b"1"]


def test_the_packaged_model_has_a_name(tmp_path):
    """A folder of that name is meant by "./sample"."""
    assert run_folder("sample") == SAMPLE_FOLDER and (SAMPLE_FOLDER / "config.json").is_file()
    assert run_folder("./sample") != SAMPLE_FOLDER and run_folder(tmp_path) == tmp_path


HOLD = """
import pathlib, sys
from vlbeit_jax.folders import published
with published(pathlib.Path(sys.argv[1])) as folder:
    (folder / "first").write_text("first")
    print("written", flush=True)
    sys.stdin.read()
"""


def held(out):
    """A process that writes ``out`` until its input is closed."""
    command = [sys.executable, "-c", HOLD, str(out)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"written\n"
    return process


def test_a_second_process_is_refused_and_the_first_one_keeps_its_folder(tmp_path):
    """It deleted the folder of the first, whose metadata then lay over the second's shards."""
    with held(tmp_path / "out") as first:
        with pytest.raises(UsageError, match=f"being written by process {first.pid} on "):
            with published(tmp_path / "out"):
                pass
        with published(tmp_path / "other"):  # The control: another folder is free.
            pass
        first.communicate()
    assert first.returncode == 0 and (tmp_path / "out" / "first").read_text() == "first"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out"]


def test_what_a_killed_process_has_left_is_no_obstacle(tmp_path):
    with held(tmp_path / "out") as first:
        first.kill()
    assert (tmp_path / ".out.incomplete" / "first").exists()
    with published(tmp_path / "out") as folder:
        (folder / "second").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert os.listdir(tmp_path / "out") == ["second"]


def test_a_shared_lock_keeps_others_out_until_the_last_has_ended(tmp_path):
    out = tmp_path / "out"
    with locked(out, shared=True):
        with locked(out, shared=True):
            pass
        with pytest.raises(UsageError, match="being written"), locked(out):
            pass
    with locked(out):
        pass
    assert not list(tmp_path.iterdir())


def test_of_many_at_once_each_is_alone_or_refused(tmp_path):
    """Whoever ends removes the file of the lock, which another may just have opened."""
    inside, most, refused = [], [], []

    def enter():
        for _ in range(100):
            try:
                with locked(tmp_path / "out"):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
            except UsageError:
                refused.append(1)

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(most) + len(refused) == 400 and set(most) == {1}


@pytest.mark.parametrize(
    "module, arguments",
    [
        ("prepare", ["--kind=texts", "--format=text", "--input=a.txt", "--out=PLACE"]),
        ("text_tokenizer", ["--data=sample:texts", "--out=PLACE"]),
        ("convert", ["--from=sample", "--to=torch", "--out=PLACE"]),
        ("report", ["--from=sample", "--data=sample:pairs", "--out=PLACE"]),
        ("evaluate", ["--from=sample", "--data=sample:pairs", "--json=PLACE"]),
        ("predict", ["--from=sample", "--input=README.md", "--out=PLACE"]),
        ("main", ["--config=sample", "--workdir=PLACE"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_command_writes_to_an_address(module, arguments):
    arguments = [each.replace("PLACE", "s3://bucket/x") for each in arguments]
    ended = command(f"vlbeit_jax.{module}", *arguments)
    assert ended.returncode == 2 and "only folders of this machine" in ended.stderr, ended.stderr


def test_checkpoints_of_another_user_are_told_at_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(UsageError, match=f"^{tmp_path}: Permission denied for user"):
        Checkpointer(tmp_path)
    Checkpointer(tmp_path, read_only=True)


def test_a_file_for_which_there_is_no_room_is_not_half_written(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("before")
    with pytest.raises(StorageError, match=f"the disk of {tmp_path} is full"):
        with appearing(path) as out:
            out.write("half")
            raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text() == "before" and [each.name for each in tmp_path.iterdir()] == [
        path.name
    ]
