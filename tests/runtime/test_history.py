"""The history of a run: steps and time that were used, lost or not recorded."""

import pytest

from vlbeit_jax.runtime import history


def test_goodput_counts_steps_that_were_taken_twice_once():
    def entry(event, step, wall, steps):
        return {"event": event, "step": step, "seconds": {"wall": wall, "steps": steps}}

    lines = [
        {"event": "started", "step": 0},
        entry("saved", 10, 50.0, 20.0),
        entry("ended", 20, 100.0, 40.0),
        {"event": "started", "step": 10},  # Ten steps were lost.
        entry("saved", 30, 60.0, 40.0),
    ]
    found = history.goodput(lines, 30)
    assert (found["wall"], found["steps"], found["lost"]) == (160.0, 60.0, 20.0)
    assert found["goodput"] == pytest.approx(60 / 160)
    assert (found["lost_steps"], found["unrecorded"]) == (10, 0)


def test_a_start_that_was_killed_leaves_time_that_is_not_recorded():
    def entry(event, step, second, **seconds):
        moment = f"2026-11-27T10:00:{second:02d}+0000"
        return {"event": event, "step": step, "time": moment, "seconds": seconds}

    lines = [
        entry("started", 0, 0),
        entry("saved", 5, 20, wall=20.0, steps=9.0, start=4.0, compile=5.0, evaluation=2.0),
        entry("started", 5, 50),  # Killed at some time in these 30 seconds.
        entry("ended", 8, 59, wall=9.0, steps=9.0),
    ]
    found = history.goodput(lines, 8)
    assert (found["unrecorded"], found["lost_steps"]) == (30.0, 0)
    assert (found["start"], found["compile"], found["evaluation"]) == (4.0, 5.0, 2.0)
    killed_at = lines[1]["time"]
    lines[1]["time"] = "2026-11-27T11:00:00+0000"  # The clock was set back.
    assert history.goodput(lines, 8)["unrecorded"] == 0
    lines[1]["time"] = killed_at
    assert history.goodput(lines, 8)["unrecorded"] == 30.0
    del lines[1]["time"]
    assert history.goodput(lines, 8)["unrecorded"] == 0


def test_a_history_with_a_cut_off_line_is_read(tmp_path):
    history.History(tmp_path).add("started", {"step": 0})
    with (tmp_path / history.FILE).open("a") as out:
        out.write('{"event": "saved", "time": "a day", "stfp": 3}\n')  # A flipped bit.
        out.write('{"event": "ended", "time": "a day", "step": 3, "code": 0, "ended": null}\n')
        out.write('[]\n{"event": "sav')
    assert [each["event"] for each in history.read_history(tmp_path)] == ["started"]
    history.History(tmp_path, enabled=False).add("ended", {"step": 0})
    assert history.last_saved(tmp_path) == 0
    history.History(tmp_path).add("started", {"step": 3})  # On a line of its own.
    assert [each["step"] for each in history.read_history(tmp_path)] == [0, 3]
