"""A process that does nothing is ended with its stack traces; one that works is not."""

import datetime
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests import tiny
from tests.runtime.test_processes import MAIN, together
from vlbeit_jax import progress
from vlbeit_jax.errors import Exit
from vlbeit_jax.runtime import outside_watch, watchdog
from vlbeit_jax.runtime.history import read_history

LIMIT = 0.3


class Ends:
    """Notes how the process would have been ended."""

    def __init__(self):
        self.errors, self.came = [], threading.Event()

    def __call__(self, error):
        self.errors.append(str(error))
        self.came.set()


def wait(seconds):
    threading.Event().wait(seconds)


def test_beats_keep_a_process_alive_and_their_end_ends_it():
    ends = Ends()
    with watchdog.watching(LIMIT, ends):
        watchdog.steps_begin()
        for _ in range(12):
            wait(LIMIT / 4)
            watchdog.beat()
        assert not ends.errors
        assert ends.came.wait(20)
    (said,) = ends.errors
    assert said.startswith("nothing was done for 0s: no step was finished; the main thread is in")
    assert "raise run.stuck_minutes" in said


def test_what_takes_longer_has_a_longer_limit_and_then_no_more():
    ends = Ends()
    with watchdog.watching(LIMIT, ends):
        assert not ends.came.wait(3 * LIMIT)  # The run starts.
        watchdog.steps_begin()
        with watchdog.patient("the run evaluates"):
            with watchdog.patient("the step is compiled"):
                pass
            assert not ends.came.wait(3 * LIMIT)
            assert ends.came.wait(20)
    assert "nothing was done for 2s while the run evaluates: no step" in ends.errors[0]
    ends = Ends()
    with watchdog.watching(LIMIT, ends), watchdog.patient("the run saves"):
        assert ends.came.wait(20)  # The control: a start may last too long as well.


def test_items_that_are_counted_are_beats():
    ends = Ends()
    with watchdog.watching(LIMIT, ends):
        watchdog.steps_begin()
        for _ in progress.counted(range(12), "scoring", "batches"):
            wait(LIMIT / 4)
    assert not ends.errors


def test_a_suspended_process_has_not_waited(monkeypatch):
    ends, late = Ends(), [0.0]
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: time.perf_counter() + late[0])
    with watchdog.watching(100.0, ends):
        watchdog.steps_begin()
        for _ in range(3):
            late[0] += 90.0
            wait(1.2)
    assert not ends.errors


def test_zero_is_no_limit():
    before = threading.active_count()
    with watchdog.watching(0.0, Ends()):
        assert threading.active_count() == before


STUCK = """
import ctypes, time
from vlbeit_jax.runtime import watchdog
def step_that_waits():
    {}
with watchdog.watching(0.3):
    watchdog.steps_begin()
    step_that_waits()
"""


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ("threading = __import__('threading'); threading.Event().wait()", Exit.STUCK),
        ("while True: pass", Exit.STUCK),
        ("ctypes.CDLL(None).sleep(100)", Exit.STUCK),
        ("ctypes.PyDLL(None).sleep(100)", -signal.SIGKILL),
    ],
    ids=["lock", "loop", "C", "C with Python's lock"],
)
def test_a_stuck_process_shows_its_stacks_and_ends(call, code):
    done = subprocess.run(
        [sys.executable, "-c", STUCK.format(call)],
        cwd=tiny.TOP,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == code, done.stderr
    assert "in step_that_waits" in done.stderr and "most recent call first" in done.stderr
    said = "nothing was done for 0s: " if code == Exit.STUCK else "process "
    assert done.stderr.splitlines()[-1].startswith(f"error: {said}")
    assert code == Exit.STUCK or "no sign of life for 2s: a call into C keeps" in done.stderr


@pytest.mark.parametrize(("process", "said"), [(7, "it is killed"), (1, "docker run --init")])
def test_the_first_process_of_a_container_cannot_be_killed_from_within(process, said):
    assert said in outside_watch._last_words(process, 2.0)


SUSPENDED = """
import signal, sys, time
from vlbeit_jax.runtime import watchdog
with watchdog.watching(0.1):
    watchdog.steps_begin()
    print("begins", flush=True)
    for _ in range(20):
        time.sleep(0.05)
        watchdog.beat()
"""


def test_a_process_may_be_suspended_for_longer_than_any_limit():
    """It alone, as by SIGSTOP. Meanwhile it can be asked where it is, before and after."""
    with subprocess.Popen(
        [sys.executable, "-c", SUSPENDED],
        cwd=tiny.TOP,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "begins\n"
        process.send_signal(outside_watch.SHOW_STACKS)
        process.send_signal(signal.SIGSTOP)
        wait(1.5)
        process.send_signal(signal.SIGCONT)
        assert process.wait(20) == 0
        assert "most recent call first" in process.stderr.read()


# A run whose data stop coming: the tenth batch is never read.
NO_MORE = """
import runpy, threading
from vlbeit_jax.runtime import loop
given, calls = loop._next, []
def no_more(*arguments):
    calls.append(arguments)
    if len(calls) > 10:
        threading.Event().wait()
    return given(*arguments)
loop._next = no_more
runpy.run_module("vlbeit_jax.main", run_name="__main__")
"""
MINUTES = 0.2


@pytest.fixture(scope="module")
def config(world, tmp_path_factory):
    values = tiny.pretrain_config(
        world, schedule="text", steps=50, log_every=5, stuck_minutes=MINUTES
    )
    return tiny.config_file(values, tmp_path_factory.mktemp("stuck"))


def test_a_run_that_is_stuck_says_where_and_ends(config, tmp_path):
    """Its start and its compilation take longer than a step may."""
    command = [sys.executable, "-c", NO_MORE, f"--config={config}", f"--workdir={tmp_path / 'run'}"]
    done = subprocess.run(
        command,
        cwd=tiny.TOP,
        env=os.environ | {"XLA_FLAGS": tiny.one_device(os.environ["XLA_FLAGS"])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == Exit.STUCK, done.stderr
    said = done.stderr.splitlines()[-1]
    assert said.startswith("error: nothing was done for 12s: no step was finished; the main thread")
    assert "in no_more" in done.stderr and "Thread 0x" in done.stderr
    assert (tmp_path / "run" / "log.txt").read_text().splitlines()[-1].endswith(said)
    end = read_history(tmp_path / "run")[-1]
    assert (end["event"], end["step"], end["ended"], end["code"]) == ("ended", 10, "stuck", 68)
    found = seconds_stuck(tmp_path / "run")
    print(f"ended {found} s after the last step")
    # Not exactly 12: the log has whole seconds, and a step's line comes after its beat.
    assert 6 <= found < 40


def seconds_stuck(run):
    """Seconds between the line of the last step and the last line of the log."""
    lines = (run / "log.txt").read_text().splitlines()
    last_step = [line for line in lines if "step 10/50" in line][-1]
    first, end = (
        datetime.datetime.strptime(line[:19], "%Y-%m-%d %H:%M:%S")
        for line in (last_step, lines[-1])
    )
    return (end - first).total_seconds()


@pytest.mark.slow
@pytest.mark.parametrize("process", [0, 1])
def test_one_of_two_that_is_stuck_ends_both(config, tmp_path, process):
    """The other one waits for it in a collective operation. Both show where they are."""
    arguments = [f"--config={config}", f"--workdir={tmp_path / 'run'}"]
    codes, texts = together(
        2, lambda _: arguments, program=lambda each: ("-c", NO_MORE) if each == process else MAIN
    )
    assert codes == [Exit.STUCK] * 2, texts
    assert "in no_more" in texts[process] and "in no_more" not in texts[1 - process]
    assert texts[0].splitlines()[-1] == texts[1].splitlines()[-1]
    assert "nothing was done for 12s" in texts[0].splitlines()[-1]
    assert all("most recent call first" in text for text in texts)
    print(f"both ended {seconds_stuck(tmp_path / 'run')} s after the last step")
