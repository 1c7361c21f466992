"""Workers that crash: their input is named, others take their place, and the work goes on."""

import os

import pytest

from tests.make_data import build, pair_members, write_tar
from tests.prepare.crashing import crash_at_three
from vlbeit_jax.data.source import open_set
from vlbeit_jax.errors import UsageError
from vlbeit_jax.prepare import pool, work
from vlbeit_jax.prepare.crashed import crashed
from vlbeit_jax.prepare.formats import base
from vlbeit_jax.prepare.work_plan import read_plan
from vlbeit_jax.prepare.write_part import write_part
from vlbeit_jax.types import Kind


def test_a_crash_is_a_result_and_the_other_jobs_are_done():
    reported = []

    def report(items, dropped, reading=""):
        reported.append(items)

    results = dict(pool.run(crash_at_three, range(8), 2, report))
    crashes = {job: results.pop(job) for job in (3, 4)}
    assert results == {job: 10 * job for job in range(8) if job not in (3, 4)}
    assert all(isinstance(each, pool.CrashedError) for each in crashes.values())
    assert [(each.how, each.reading) for each in crashes.values()] == [
        ("SIGSEGV", "file 3"),
        ("SIGABRT", ""),
    ]
    assert sum(reported) == 4


def crashes_at(path, times):
    """An engine in this process, in which reading a file ends a worker a few times."""

    def engine(plan, numbers, report):
        for number in numbers:
            holds = any(unit.path == path for unit in base.units_in(plan.units[number]))
            if holds and path not in crashed(plan, number) and times:
                times.pop()
                yield number, pool.CrashedError("SIGSEGV", path)
            else:
                yield number, write_part(plan, number)

    return engine


@pytest.fixture
def tars(tmp_path):
    return [write_tar(tmp_path / f"{n}.tar", pair_members(10, 10 * n)) for n in range(3)]


def test_a_file_that_crashes_a_library_is_named_and_can_be_left_out(tmp_path, tars):
    """The three small files are one part."""
    out, path = tmp_path / "set", str(tars[1])
    with pytest.raises(UsageError, match=r"1\.tar: a library crashed .*SIGSEGV.*--bad_inputs=skip"):
        build(out, Kind.PAIRS, tars, engine=crashes_at(path, [1]))
    meta = build(out, Kind.PAIRS, tars, engine=crashes_at(path, [1]), bad_inputs="skip")
    ((name, why),) = meta["bad_inputs"]
    assert name == "1.tar" and "SIGSEGV" in why and sum(meta["counts"].values()) == 20
    found = open_set(str(out)).records("train")
    kept = {found[n]["id"].decode().partition("/")[0] for n in range(len(found))}
    assert kept == {"0", "2"}
    clean = build(tmp_path / "clean", Kind.PAIRS, [tars[0], tars[2]])
    assert clean["fingerprint"] == meta["fingerprint"]


def test_finished_parts_stay_and_a_mended_file_is_read_again(tmp_path, tars, monkeypatch):
    monkeypatch.setattr(base, "UNIT_TEXT", 1)
    out, path = tmp_path / "set", str(tars[1])
    with pytest.raises(UsageError, match=r"1\.tar: .* 1 of 3 parts are finished"):
        build(out, Kind.PAIRS, tars, engine=crashes_at(path, [1]))
    build(out, Kind.PAIRS, tars, engine=crashes_at(path, [1]), bad_inputs="skip", part_range=(1, 2))
    plan = read_plan(tmp_path / "set.work")
    assert plan.finished(0) and plan.finished(1) and not plan.finished(2)
    # The plan states the time of a change, so the note is about a file that is gone.
    write_tar(tars[1], pair_members(10, 50))
    os.utime(tars[1], ns=(1, 1))
    (tmp_path / "set.work" / "parts" / "00001.json").unlink()
    meta = build(out, Kind.PAIRS, tars, bad_inputs="skip")
    assert not meta["bad_inputs"] and sum(meta["counts"].values()) == 30


def test_a_crash_without_an_input_is_not_tried_for_ever(tmp_path, tars):
    def engine(plan, numbers, report):
        for number in numbers:
            yield number, pool.CrashedError("SIGBUS", "")

    with pytest.raises(UsageError, match=r"0\.tar: a library crashed"):
        build(tmp_path / "set", Kind.PAIRS, tars, engine=engine, bad_inputs="skip")


def test_minus_one_uses_the_cores_only_for_several_jobs():
    assert pool.processes(-1, 1) == 0 and pool.processes(0, 9) == 0
    assert pool.processes(1, 9) == 1 and pool.processes(5, 2) == 2
    assert work.pool is pool
