"""Killed anywhere and started again, with any number of processes: the same bytes."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.make_data import build, pair_members, write_tar
from tests.processes import TOP
from vlbeit_jax import folders
from vlbeit_jax.data.source import META_FILE, open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare import finish, parts, work
from vlbeit_jax.prepare.formats import base
from vlbeit_jax.prepare.pictures import Limits
from vlbeit_jax.prepare.work_plan import read_plan
from vlbeit_jax.types import Kind

PARTS = 6
# A plan puts small files into one part; here each file is one.
COMMAND = """
import pathlib, sys
from tests.make_data import build
from vlbeit_jax.prepare.formats import base
from vlbeit_jax.types import Kind
base.UNIT_TEXT = 1
out, workers, *tars = sys.argv[1:]
build(pathlib.Path(out), Kind.PAIRS, tars, workers=int(workers), validation_share=0.2)
"""


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    """Files that are read as one part each; some captions occur in several."""
    folder = tmp_path_factory.mktemp("tars")
    found = []
    for number in range(PARTS):
        members = pair_members(40, 30 * number)  # A quarter is also in the next file.
        found.append(write_tar(folder / f"{number}.tar", members))
    return found


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(base, "UNIT_TEXT", 1)


@pytest.fixture(scope="module")
def wanted(tars, tmp_path_factory):
    """What one process makes of them without being disturbed."""
    out = tmp_path_factory.mktemp("wanted") / "set"
    before, base.UNIT_TEXT = base.UNIT_TEXT, 1
    build(out, Kind.PAIRS, tars, validation_share=0.2)
    base.UNIT_TEXT = before
    return contents(out)


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def start(out, workers, tars):
    command = [sys.executable, "-c", COMMAND, str(out), str(workers), *map(str, tars)]
    return subprocess.Popen(command, cwd=TOP, stderr=subprocess.PIPE)


def finished_parts(out):
    folder = out.with_name(f"{out.name}.work") / "parts"
    return len(list(folder.glob("*.json"))) if folder.is_dir() else 0


def children(process):
    with open(f"/proc/{process}/task/{process}/children") as file:
        return [int(each) for each in file.read().split()]


def test_a_pool_of_two_that_is_killed_gives_the_bytes_of_one_process(tmp_path, tars, wanted):
    """By SIGKILL, when one more part is finished and a random time has passed."""
    out, draws, kills = tmp_path / "set", random.Random(0), 0
    for least in (1, 4):
        process = start(out, 2, tars)
        while finished_parts(out) < least and process.poll() is None:
            time.sleep(0.005)
        time.sleep(draws.uniform(0, 0.05))
        kills += process.poll() is None
        process.kill()
        process.communicate()
        assert not out.exists() or contents(out) == wanted
    process = start(out, 2, tars)
    said = process.communicate()[1].decode()
    assert kills and (process.returncode == 0 or "exists already" in said), said
    assert contents(out) == wanted
    assert [path.name for path in tmp_path.iterdir() if path.name != ".set.lock"] == ["set"]


def test_workers_end_when_the_main_process_is_killed(tmp_path, tars):
    process = start(tmp_path / "set", 2, tars)
    while finished_parts(tmp_path / "set") < 1:
        time.sleep(0.005)
    workers = children(process.pid)
    assert len(workers) >= 2
    process.kill()
    process.communicate()
    until = time.monotonic() + 30
    while any(os.path.exists(f"/proc/{each}") for each in workers):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_worker_that_is_killed_is_told_and_costs_its_own_part_alone(tmp_path, tars, wanted):
    out = tmp_path / "set"
    process = start(out, 2, tars)
    while len(children(process.pid)) < 2 and process.poll() is None:
        time.sleep(0.005)
    os.kill(children(process.pid)[-1], signal.SIGKILL)
    said = process.communicate()[1].decode()
    assert process.returncode == 1 and "a worker process was ended from outside (SIGKILL)" in said
    last = start(out, 0, tars)
    last.communicate()
    assert last.returncode == 0 and contents(out) == wanted


class Died(BaseException):
    """What a process does that is killed, as far as files are concerned."""


@pytest.mark.parametrize("point", range(0, 40, 3))
def test_wherever_it_dies_the_next_start_completes_it(tmp_path, tars, wanted, monkeypatch, point):
    """Each file that is renamed, linked or written at the end is a point to die at."""
    events = []

    def dying(function):
        def call(*args, **kwargs):
            events.append(function.__name__)
            if len(events) == point:
                raise Died
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(shutil, "rmtree", lambda *args, **kwargs: None)
    for module, name in (
        (parts, "publish"),
        (work, "make_shard"),
        (finish, "describe_set"),
        (finish, "_done"),
        (folders, "replace_empty"),
        (finish, "summary"),
    ):
        monkeypatch.setattr(module, name, dying(getattr(module, name)))
    out = tmp_path / "set"
    try:
        build(out, Kind.PAIRS, tars, validation_share=0.2)
        assert point == 0 or point > len(events)
    except Died:
        pass
    monkeypatch.undo()
    monkeypatch.setattr(base, "UNIT_TEXT", 1)
    if not out.exists() or (tmp_path / "set.work").exists():
        build(out, Kind.PAIRS, tars, validation_share=0.2)
    assert contents(out) == wanted and [path.name for path in tmp_path.iterdir()] == ["set"]


def test_several_machines_share_the_parts(tmp_path, tars, wanted):
    """Three calls in any order; whoever makes the last part completes the set."""
    out = tmp_path / "set"
    for part_range in ((4, 6), (0, 2)):
        assert not build(out, Kind.PAIRS, tars, validation_share=0.2, part_range=part_range)
        assert not out.exists()
    # What is left there of a process of another machine is not ours to remove.
    (tmp_path / "set.work" / "parts" / "00002.json.elsewhere.1.tmp").write_text("half")
    meta = build(out, Kind.PAIRS, tars, validation_share=0.2, part_range=(2, 4))
    assert meta["counts"] and contents(out) == wanted


def test_another_plan_is_refused_and_says_what_differs(tmp_path, tars):
    out = tmp_path / "set"
    build(out, Kind.PAIRS, tars, part_range=(0, 2))
    before = contents(tmp_path / "set.work" / "parts")
    with pytest.raises(
        UsageError, match=r"2 finished parts of another plan, which differs in"
    ) as e:
        build(out, Kind.PAIRS, tars, limits=Limits(short_side=32))
    assert "limits.short_side: 0 before, 32 now" in str(e.value)
    assert f"rm -r {tmp_path}/set.work" in str(e.value)
    assert contents(tmp_path / "set.work" / "parts") == before
    # What is decided at the end may change.
    assert build(out, Kind.PAIRS, tars, max_dropped=0.5, deduplicate=True)["left_out"]["duplicate"]


def test_a_part_that_is_finished_is_not_read_again(tmp_path, tars, monkeypatch):
    out = tmp_path / "set"
    build(out, Kind.PAIRS, tars, part_range=(0, 5))
    read = []
    form = work.write_part.__globals__["FORMATS"]["webdataset"]
    monkeypatch.setattr(
        form,
        "read",
        lambda unit, options, old=form.read: read.append(unit.path) or old(unit, options),
    )
    build(out, Kind.PAIRS, tars)
    assert read == [str(tars[5])]


def test_the_plan_is_the_same_each_time(tmp_path, tars):
    plans = []
    for name in ("a", "b"):
        build(tmp_path / name, Kind.PAIRS, tars, part_range=(0, 1))
        plans.append(read_plan(tmp_path / f"{name}.work").as_json())
    assert plans[0] == plans[1] and len(plans[0]["parts"]) == PARTS


def test_two_at_once_on_one_output(tmp_path, tars, wanted):
    """The second is refused, and the first is right."""
    out = tmp_path / "set"
    process = start(out, 2, tars)
    while not (tmp_path / "set.work").exists():
        time.sleep(0.005)
    with pytest.raises(UsageError, match=f"being written by process {process.pid} on "):
        build(out, Kind.PAIRS, tars, validation_share=0.2)
    process.communicate()
    assert process.returncode == 0 and contents(out) == wanted


def test_the_number_of_shards_changes_neither_order_nor_fingerprint(tmp_path, tars):
    metas = {
        shards: build(tmp_path / f"{shards}", Kind.PAIRS, tars, shards=shards)
        for shards in (0, 1, 4, PARTS)
    }
    assert len({meta["fingerprint"] for meta in metas.values()}) == 1
    for shards, meta in metas.items():
        found = open_set(str(tmp_path / f"{shards}"))
        assert len([name for name in meta["shards"] if "train" in name]) == (shards or 1)
        ids = [found.records("train")[n]["id"] for n in range(found.count("train"))]
        assert ids == sorted(ids)
    # As many files as parts: each is a part's own file.
    lengths = [each["records"] for name, each in metas[PARTS]["shards"].items() if "train" in name]
    assert max(lengths) - min(lengths) > 1


def test_the_day_changes_nothing_but_the_description(tmp_path, tars, monkeypatch):
    made = []
    for day in (0, 1):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", str(86400 * day))
        meta = build(tmp_path / f"{day}", Kind.PAIRS, tars)
        found = contents(tmp_path / f"{day}")
        made.append((meta["fingerprint"], meta["shards"], found, json.loads(found.pop(META_FILE))))
    assert made[0][:3] == made[1][:3]
    assert [each[3].pop("date") for each in made] == ["1970-01-01", "1970-01-02"]
    assert made[0][3] == made[1][3]
