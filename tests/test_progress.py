"""Long work shows what is done and how long it still takes, on the standard error output."""

import sys

import pytest
import tqdm

from vlbeit_jax import progress
from vlbeit_jax.progress import counted, duration, hidden, progress_line, waiting


class Clock:
    """A clock that goes on when it is told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr("time.monotonic", found)
    return found


@pytest.fixture
def shown(monkeypatch):
    monkeypatch.setattr(progress._State, "shown", True)


def work(clock, seconds, items, **settings):
    """Takes so many seconds for each item."""
    for _ in counted(items, "scoring", "records", **settings):
        clock.now += seconds


def test_a_pipe_gets_a_line_at_the_start_every_ten_seconds_and_at_the_end(clock, shown, capsys):
    work(clock, 4.0, range(7), total=50, each=8)
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines() == [
        "scoring: 50 records ...",
        "scoring: 24 of 50 records (48%), 2/s, 13s left",
        "scoring: 48 of 50 records (96%), 2/s, 1s left",
        "scoring: 50 records in 28s",
    ]


def test_short_work_says_only_that_it_starts(clock, shown, capsys):
    work(clock, 0.1, range(7))
    assert capsys.readouterr().err == "scoring ...\n"


def test_nothing_is_shown_before_a_command_asks_for_it_or_where_it_is_hidden(clock, capsys):
    work(clock, 60.0, range(3))
    progress_before = progress._State.shown
    with hidden(), waiting("learning"):
        work(clock, 60.0, range(3))
    assert capsys.readouterr().err == "" and progress._State.shown is progress_before is False


def test_hidden_ends_with_its_body(clock, shown, capsys):
    with hidden():
        work(clock, 60.0, range(3))
    assert capsys.readouterr().err == ""
    work(clock, 0.0, range(3))
    assert capsys.readouterr().err == "scoring ...\n"


def test_counting_within_counting_is_silent(clock, shown, capsys):
    for _ in counted(range(2), "predicting", "records", 2):
        work(clock, 60.0, range(3))
    work(clock, 0.0, range(1))  # The outer one has ended.
    said = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in said] == ["predicting:"] * 3 + ["scoring"]


def test_a_failure_ends_the_counting(clock, shown, capsys):
    with pytest.raises(ZeroDivisionError):
        for each in counted([1, 0], "dividing", "numbers"):
            assert 1 / each
    work(clock, 0.0, range(1))
    assert capsys.readouterr().err.splitlines()[-1] == "scoring ..."


def test_items_are_passed_on_one_by_one(shown):
    taken = []

    def items():
        for each in range(3):
            taken.append(each)
            yield each

    for number, each in enumerate(counted(items(), "reading", "items")):
        assert each == number and taken == list(range(number + 1))


def test_a_terminal_gets_a_bar(shown, monkeypatch):
    made = []

    class Bar:
        def __init__(self, **settings):
            made.append(settings)

        def update(self, n):
            made.append(n)

        def close(self):
            made.append("closed")

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(tqdm, "tqdm", Bar)
    list(counted(range(2), "scoring", "records", 5, each=4))
    settings, *rest = made
    assert (settings["total"], settings["file"]) == (5, sys.stderr)
    assert rest == [4, 1, "closed"]


def test_waiting_says_how_long_it_took(clock, shown, capsys):
    with waiting("learning 300 pieces"):
        assert capsys.readouterr().err == "learning 300 pieces ...\n"
        clock.now += 41
    assert capsys.readouterr().err == "learning ... 41s\n"


@pytest.mark.parametrize(
    ("done", "total", "rate", "said"),
    [
        (1280, 5335, 210.0, "scoring: 1,280 of 5,335 records (24%), 210/s, 19s left"),
        (1, 4, 0.05, "scoring: 1 of 4 records (25%), 0.05/s, 1m00s left"),
        (12300, None, 198.0, "scoring: 12,300 records, 198/s, 1m02s so far"),
        (3, 10, 0.0, "scoring: 3 of 10 records (30%)"),
    ],
)
def test_lines_of_progress(done, total, rate, said):
    assert progress_line("scoring", done, total, "records", rate, 62.0) == said


def test_the_time_left_does_not_count_what_the_first_item_took_longer(clock, shown, capsys):
    for number in counted(range(10), "scoring", "records", 10):
        clock.now += 60.0 if number == 0 else 5.0
    first, second, *_ = capsys.readouterr().err.splitlines()[1:]
    assert first == "scoring: 1 of 10 records (10%)"
    assert second == "scoring: 3 of 10 records (30%), 0.2/s, 35s left"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "0s"), (59.4, "59s"), (59.6, "1m00s"), (952, "15m52s"), (11520, "3h12m")]
    + [(187_200, "2d04h")],
)
def test_durations_have_two_units(seconds, said):
    assert duration(seconds) == said
