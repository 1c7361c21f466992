"""launch/worker.sh: one run of each name on a host; no other process is touched."""

import os
import subprocess

import pytest

from tests.launch.stand_ins import LAUNCH, alive, executable, misleading, wait_for
from tests.tiny import TOP


@pytest.fixture
def worker(tmp_path):
    """Calls worker.sh in ``tmp_path`` with an interpreter that has a child."""
    python = executable(
        tmp_path / "python",
        f"#!/usr/bin/env bash\necho here in $PWD\nsleep 60 &\necho $! >{tmp_path}/child\nwait\n",
    )
    environment = misleading(tmp_path, LAUNCH / "worker.sh") | {
        "PYTHON": str(python),
        "RUNS": str(tmp_path / "runs"),
        "STOP_SECONDS": "5",
    }

    def run(*arguments, **settings):
        command = ["bash", "link", *arguments]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=environment | settings,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


def test_a_worker_runs_one_run_of_a_name_and_can_be_stopped(tmp_path, worker):
    assert worker("status", "a").stdout == "none\n"
    assert worker("start", "a", "--x").returncode == 0
    assert worker("status", "a").stdout.startswith("running ")
    again = worker("start", "a", "--x")
    assert again.returncode == 2 and "running already" in again.stderr
    wait_for((tmp_path / "child").exists)
    assert worker("log", "a").stdout == f"here in {TOP}\n"
    assert worker("stop", "a").returncode == 0
    assert worker("status", "a").stdout == "ended 143\n" and worker("stop", "a").returncode == 0
    wait_for(lambda: not alive(int((tmp_path / "child").read_text())))
    assert worker("start", "a", "--x", PYTHON="true").returncode == 0  # A name can be reused.
    wait_for(lambda: worker("status", "a").stdout == "ended 0\n")


def test_a_worker_tells_the_newest_step(tmp_path, worker):
    assert worker("saved", "a", f"--workdir={tmp_path}/run").stdout == "0\n"
    (tmp_path / "run" / "checkpoints" / "12").mkdir(parents=True)
    assert worker("saved", "a", "--workdir", f"{tmp_path}/run").stdout == "12\n"


def test_a_worker_takes_a_relative_folder_for_its_runs(tmp_path, worker):
    assert worker("start", "a", RUNS="relative", PYTHON="true").returncode == 0
    wait_for((tmp_path / "relative" / "a" / "exit_code").exists)
    assert worker("status", "a", RUNS="relative").stdout == "ended 0\n"


def test_a_foreign_process_with_the_number_of_an_old_run_is_left_alone(tmp_path, worker):
    """Process ids are reused, soon after a reboot; the start time tells processes apart."""
    foreign = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        assert worker("start", "a").returncode == 0
        record = tmp_path / "runs" / "a" / "process"
        number, started = record.read_text().split(maxsplit=1)
        wait_for((tmp_path / "child").exists)
        assert worker("stop", "a").returncode == 0
        for stale in (f"{foreign.pid} {started}", f"{foreign.pid}\n", f"{foreign.pid} "):
            record.write_text(stale)
            (tmp_path / "runs" / "a" / "exit_code").unlink(missing_ok=True)
            assert worker("status", "a").stdout == "lost\n"
            assert worker("stop", "a").returncode == 0 and foreign.poll() is None
        assert worker("start", "a", PYTHON="true").returncode == 0
        wait_for(lambda: worker("status", "a").stdout == "ended 0\n")
        assert foreign.poll() is None and number != str(foreign.pid)
    finally:
        foreign.kill()
        foreign.wait()


def test_a_worker_without_a_home_says_what_to_set(worker, tmp_path):
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(
        ["bash", LAUNCH / "worker.sh", "status", "a"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == "error: HOME is not set; set RUNS to the folder for logs\n"
    address = worker("status", "a", RUNS="gs://bucket/runs")
    assert address.returncode == 2 and "keeps its log on its own disk" in address.stderr
    missing = worker("log", "never")
    assert missing.returncode == 2 and "no run of this name was started here" in missing.stderr
