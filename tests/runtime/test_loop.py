"""The loop calls hooks in order, reports metrics one step late, and closes what it was given."""

import pytest

from tests.runtime.plain_steps import Feed, Recorder, loop
from vlbeit_jax.runtime.hooks.base import FINISHED, Hook


def test_metrics_come_one_step_late_and_once():
    recorder = Recorder()
    state, ending = loop([recorder])
    assert (state.step, ending) == (3, FINISHED)
    assert recorder.events == [
        "before 0",
        "after 1",
        "before 1",
        "metrics 1: 0.5",
        "after 2",
        "before 2",
        "metrics 2: 1.5",
        "metrics 3: 2.5",  # The last step's own.
        "after 3, finished",
        "close",
    ]


def test_a_hook_that_needs_a_steps_own_metrics_gets_them():
    recorder = Recorder(needs=1)
    loop([recorder], steps=2)
    assert recorder.events[1:4] == ["metrics 1: 0.5", "after 1", "before 1"]
    assert recorder.events.count("metrics 1: 0.5") == 1


def test_a_hook_ends_the_run_and_every_hook_hears_why():
    first, second = Recorder(), Recorder(stop=2)
    state, ending = loop([first, second], steps=5)
    assert (state.step, ending) == (2, "because")
    for recorder in (first, second):
        assert recorder.events[-3:] == ["metrics 2: 1.5", "after 2, because", "close"]


def test_a_run_without_steps_left_only_closes():
    recorder = Recorder()
    state, ending = loop([recorder], start=3)
    assert (state.step, ending, recorder.events) == (3, FINISHED, ["close"])


def test_streams_follow_the_schedule_from_any_step():
    feeds = {"image": Feed(), "text": Feed()}
    loop([], start=1, steps=6, schedule="image,text,image+text", feeds=feeds)
    assert (feeds["image"].given, feeds["text"].given) == (3, 4)
    assert all(feed.closed for feed in feeds.values())


@pytest.mark.parametrize("method", ["before_step", "on_metrics", "should_stop", "after_step"])
def test_everything_is_closed_after_an_error(method):
    class Broken(Hook):
        pass

    def fail(*_):
        raise RuntimeError("broken")

    setattr(Broken, method, fail)
    feeds, recorder = {"image": Feed()}, Recorder()
    with pytest.raises(RuntimeError, match="broken"):
        loop([Broken(), recorder], feeds=feeds)
    assert recorder.events[-1] == "close" and feeds["image"].closed
