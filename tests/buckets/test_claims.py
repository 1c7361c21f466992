"""Claims, growing files and folders that appear whole, in a bucket."""

import json
import threading
import time

import numpy as np
import pytest

from vlbeit_jax.buckets import appended, lease
from vlbeit_jax.config.parse import to_dict
from vlbeit_jax.errors import Damaged, Diverged, StorageError, UsageError
from vlbeit_jax.folders import published
from vlbeit_jax.places import appearing, append, held, require_writable, settle
from vlbeit_jax.runtime.history import SAVED, History
from vlbeit_jax.runtime.metrics_file import append_metrics, drop_metrics_after, read_metrics
from vlbeit_jax.runtime.resume import require_checkpoints
from vlbeit_jax.runtime.run_folder import locked, write_config
from vlbeit_jax.tasks import Config
from vlbeit_jax.training.checkpoint import Checkpointer
from vlbeit_jax.training.complete_steps import COMMITTED, METADATA

ELSEWHERE = {"host": "h", "process": 7, "boot": "b", "namespace": "n", "start": "1"}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """What takes a minute in earnest."""
    monkeypatch.setattr(lease, "EXPIRES", 0.6)
    monkeypatch.setattr(lease, "RENEWED_EVERY", 0.1)
    monkeypatch.setattr(lease, "LOOKED_EVERY", 0.05)


def test_one_process_at_a_time_holds_a_claim(folder):
    inside, most, refused = [], [], []

    def enter():
        for _ in range(4):
            try:
                with held(folder / ".lock"):
                    inside.append(1)
                    most.append(len(inside))
                    time.sleep(0.3)  # Others see at least one sign of life.
                    inside.pop()
            except BlockingIOError:
                refused.append(1)

    threads = [threading.Thread(target=enter) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(most) + len(refused) == 12 and set(most) == {1} and refused
    assert not (folder / ".lock").exists()


def test_the_claim_of_a_process_that_is_gone_expires(folder, capsys):
    claim = folder / ".lock"
    claim.write_text(json.dumps(ELSEWHERE))
    began = time.monotonic()
    with held(claim):
        assert time.monotonic() - began > lease.EXPIRES
        assert json.loads(claim.read_text())["process"] != 7
    assert "held by process 7 on h; if it gives no sign of life" in capsys.readouterr().err


def test_a_dead_process_of_this_machine_is_known_at_once(folder, monkeypatch):
    monkeypatch.setattr(lease, "EXPIRES", 60)
    (folder / ".lock").write_text(json.dumps(lease._this_process() | {"process": 2**22 + 1}))
    with held(folder / ".lock"):
        pass
    # The same number, of a process that began at another time.
    (folder / ".lock").write_text(json.dumps(lease._this_process() | {"start": "1"}))
    with held(folder / ".lock"):
        pass


def test_a_process_that_has_lost_its_claim_ends(folder, monkeypatch):
    ended = threading.Event()

    def end(why):
        told.append(why)
        ended.set()

    told: list[str] = []
    monkeypatch.setattr(lease, "_end", end)
    with held(folder / ".lock"):
        assert not ended.wait(0.5)  # The control: it is renewed.
        (folder / ".lock").write_text(json.dumps(ELSEWHERE))  # Another generation.
        assert ended.wait(10) and "another process has taken over" in told[0]
    assert json.loads((folder / ".lock").read_text()) == ELSEWHERE  # Not removed: it is not ours.


@pytest.mark.parametrize("error", [StorageError("away"), UsageError("access is refused")])
def test_a_process_that_cannot_renew_its_claim_ends(folder, monkeypatch, error):
    """Whether the bucket is away or the account may not write any more, another may take over."""
    ended = threading.Event()

    def end(why):
        told.append(why)
        ended.set()

    def fails(self, method, *_, **__):
        if method == "PATCH":
            raise error
        return request(self, method, *_, **__)

    told: list[str] = []
    request = type(folder).request
    monkeypatch.setattr(lease, "_end", end)
    monkeypatch.setattr(type(folder), "request", fails)
    with held(folder / ".lock"):
        assert ended.wait(10) and f"{error}; the claim cannot be renewed" in told[0]


def test_the_folder_of_a_run_is_claimed(folder):
    with locked(folder):
        write_config(folder, Config())
        with pytest.raises(UsageError, match="another process is training in it"), locked(folder):
            pass
    with locked(folder):
        assert json.loads((folder / "config.json").read_text()) == json.loads(
            json.dumps(to_dict(Config()))
        )
    (folder / "config.json").unlink()
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="not the folder of a run"), locked(folder):
        pass


def test_lines_wait_a_moment_and_cost_the_same_in_a_long_file(cloud, folder, monkeypatch):
    path, costs = folder / "log.txt", []
    for number in range(3):
        before = cloud.requests.counts
        for _ in range(50):
            append(path, f"{number}\n".encode())
        settle()
        costs.append(cloud.requests.since(before))
    assert path.read_text() == "0\n" * 50 + "1\n" * 50 + "2\n" * 50
    assert [each.name for each in folder.iterdir()] == ["log.txt"]
    assert costs[1] == costs[2] == {"look up": 1, "write": 2, "delete": 1}
    append(path, b"3\n")
    assert path.read_text().endswith("2\n")  # The control: it waits.
    monkeypatch.setattr(appended, "DELAY", 0.1)
    settle()
    append(path, b"4\n")
    deadline = time.monotonic() + 20
    while not path.read_text().endswith("3\n4\n"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_another_writer_of_a_growing_file_is_noticed(folder, monkeypatch):
    path = folder / "log.txt"
    path.write_text("a")
    facts = path.facts()
    path.write_text("ab")  # Somebody else, after this process has looked.
    monkeypatch.setattr(type(path), "facts", lambda _: facts)
    with pytest.raises(StorageError, match="another process writes it"):
        appended.extend(path, b"c")


def test_a_line_that_cannot_be_written_keeps_no_other_back(folder, monkeypatch):
    extend, fails = appended.extend, [True]

    def failing(path, content):
        if fails and path.name == "a.txt":
            raise StorageError("the bucket is away")
        extend(path, content)

    monkeypatch.setattr(appended, "extend", failing)
    for name in ("a.txt", "b.txt", "c.txt"):
        append(folder / name, b"1\n")
    with pytest.raises(StorageError, match="is away"):
        settle()
    assert [path.name for path in folder.iterdir()] == ["b.txt", "c.txt"]
    append(folder / "a.txt", b"2\n")
    fails.clear()
    settle()
    assert [path.read_text() for path in folder.iterdir()] == ["1\n2\n", "1\n", "1\n"]


def test_figures_are_read_and_cut_as_on_a_disk(folder):
    for step in (1, 2, 3):
        append_metrics(folder, {"step": step, "split": "train", "loss": float(step)})
    settle()
    assert [line["step"] for line in read_metrics(folder)] == [1, 2, 3]
    drop_metrics_after(folder, 2)
    assert [line["step"] for line in read_metrics(folder)] == [1, 2]


def test_a_run_that_was_killed_before_its_first_save_may_start_again(folder):
    """On a disk, the missing folder would say that its checkpoints are gone."""
    append_metrics(folder, {"step": 8, "split": "train"})
    settle()
    require_checkpoints(folder)
    History(folder).add(SAVED, {"step": 8})
    with pytest.raises(Damaged, match="checkpoints is missing, but the run has saved step 8"):
        require_checkpoints(folder)


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_a_folder_appears_with_its_descriptions_last(folder, monkeypatch):
    uploads = []
    upload = type(folder).upload
    monkeypatch.setattr(
        type(folder), "upload", lambda at, sent: uploads.append([*sent]) or upload(at, sent)
    )
    with published(folder / "out") as made:
        (made / "deep").mkdir()
        (made / "deep" / "x.json").write_text("{}")
        (made / "config.json").write_text("{}")
        (made / "weights").write_bytes(b"1")
        assert not (folder / "out").exists()
    assert uploads == [["deep/x.json", "weights"], ["config.json"]]
    assert files(folder) == ["out/config.json", "out/deep/x.json", "out/weights"]
    with pytest.raises(UsageError, match="out exists already"), published(folder / "out"):
        pass


def test_nothing_is_left_of_what_was_cut_off(folder, monkeypatch):
    with pytest.raises(KeyError), published(folder / "out") as made:
        (made / "half").write_bytes(b"1")
        raise KeyError
    assert files(folder) == []
    # A process that was killed while it uploaded: the next one clears up.
    (folder / ".out.incomplete").write_bytes(b"")
    (folder / "out" / "half").write_bytes(b"1")
    with published(folder / "out") as made:
        (made / "whole").write_bytes(b"2")
    assert files(folder) == ["out/whole"]


def test_a_file_appears_whole(folder):
    with pytest.raises(KeyError), appearing(folder / "a.json") as out:
        out.write("half")
        raise KeyError
    assert files(folder) == []
    with appearing(folder / "a.json") as out:
        out.write("whole")
    require_writable(folder / "a.json")
    assert files(folder) == ["a.json"]
    with pytest.raises(UsageError, match="cannot be written: give a file"):
        require_writable(folder)


def test_checkpoints_that_were_cut_off_or_copied(folder):
    trees = {"params": {"a": np.arange(6, dtype=np.float32)}}
    saving = Checkpointer(folder, keep_last=2, alone=True)
    for step in (1, 2, 3):
        trees["params"]["a"] = trees["params"]["a"] + 1
        saving.save(step, trees, {"said": step})
    saving.close()
    reading = Checkpointer(folder, read_only=True)
    assert reading.steps() == [2, 3] and reading.describe(3)["said"] == 3
    assert (reading.leaves(3, "params")["a"] == np.arange(6) + 3).all()
    # Killed before the last of its files; and copied without it, as other programs leave it out.
    (folder / "2" / COMMITTED).unlink()
    (folder / "3" / COMMITTED).unlink()
    (folder / "2" / METADATA).write_text(json.dumps({"commit_timestamp_nsecs": None}))
    assert reading.steps() == [3]
    Checkpointer(folder, alone=True)
    assert (folder / "3" / COMMITTED).is_file() and not (folder / "2").exists()
    with pytest.raises(Diverged):
        saving.save(4, {"params": {"a": np.array([np.nan], np.float32)}}, {})
    assert Checkpointer(folder, read_only=True).steps() == [3]
