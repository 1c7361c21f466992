"""Signals, lost processes and full disks, each in a real run: what is saved, and the exit code."""

import os
import pathlib
import re
import resource
import signal
import time

import pytest

from tests import processes, tiny
from tests.runtime.test_rendezvous import free_port
from vlbeit_jax.data import loader_process
from vlbeit_jax.errors import Exit
from vlbeit_jax.runtime import signals
from vlbeit_jax.runtime.history import read_history
from vlbeit_jax.training.checkpoint import Checkpointer

STEP = r"step +(\d[\d,]*)/"
ENDS_WITHIN = 60  # Seconds, on a busy machine.
STARTED: list[processes.Running] = []


@pytest.fixture(autouse=True)
def nothing_is_left():
    """Ends what a test that failed has left."""
    yield
    while STARTED:
        STARTED.pop().kill()


@pytest.fixture(scope="module")
def config(world, tmp_path_factory):
    values = tiny.pretrain_config(
        world, schedule="text", steps=50_000, log_every=10, checkpoint_every=50_000
    )
    return tiny.config_file(values, tmp_path_factory.mktemp("signals"))


class Started:
    """A run in a process of its own, whose output is read on the way."""

    sent = 0.0  # When a signal was sent to any of them last.

    def __init__(self, config, workdir, *arguments, devices=1):
        self.workdir, self._said = workdir, ""
        flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
        self.line = ["-m", "vlbeit_jax.main", f"--config={config}"]
        self.line += [f"--workdir={workdir}", *arguments]
        environment = os.environ | {"XLA_FLAGS": flags}
        self.process = processes.begin(*self.line, environment=environment)
        STARTED.append(self.process)

    def said(self):
        return self._said or self.process.said

    def wait_for(self, text):
        deadline = time.monotonic() + 200
        while not re.search(text, self.said()):
            assert self.process.is_running, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)
        return self

    def send(self, *numbers):
        Started.sent = time.monotonic()
        for number in numbers:
            os.kill(self.process.pid, number)
        return self

    def ended(self):
        """Returns the exit code and the last line."""
        done = self.process.ended(timeout=ENDS_WITHIN)
        STARTED.remove(self.process)
        self._said = done.stdout + done.stderr
        print(f"{self.line[-1]}: {done.returncode} after {time.monotonic() - Started.sent:.1f} s")
        return done.returncode, self._said.splitlines()[-1]


def newest(workdir):
    return Checkpointer(workdir / "checkpoints", read_only=True).latest()


@pytest.mark.parametrize(
    ("number", "code", "message"),
    [
        (signal.SIGTERM, Exit.PREEMPTED, "error: SIGTERM came; step {} is saved; run the same"),
        (signal.SIGINT, Exit.INTERRUPTED, "interrupted; step {} is saved; run the same"),
        pytest.param(
            signal.SIGHUP,
            Exit.PREEMPTED,
            "error: SIGHUP came; step {} is saved; run the same",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["term", "ctrl-c", "hang-up"],
)
def test_a_signal_saves_the_step_and_ends_the_run_with_its_code(
    config, tmp_path, number, code, message
):
    run = Started(config, tmp_path / "run").wait_for(f"{STEP}.*train").send(number)
    ended, last = run.ended()
    step = newest(tmp_path / "run")
    assert ended == code and message.format(step) in last, run.said()
    assert "Traceback" not in run.said()
    taken = [int(found.replace(",", "")) for found in re.findall(STEP, run.said())]
    assert step == taken[-1] > 0  # No step is lost.
    end = read_history(tmp_path / "run")[-1]
    assert (end["event"], end["step"], end["code"]) == ("ended", step, code)


@pytest.mark.parametrize("text", ["device:", "compiling the step"])
def test_sigterm_ends_a_start_and_a_compilation_at_once(config, tmp_path, text):
    run = Started(config, tmp_path / "run").wait_for(text)
    began = time.monotonic()
    code, last = run.send(signal.SIGTERM).ended()
    assert code == Exit.PREEMPTED and "SIGTERM: ended at once" in last
    assert newest(tmp_path / "run") is None and time.monotonic() - began < 5


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once(config, tmp_path):
    run = Started(config, tmp_path / "run").wait_for(f"{STEP}.*train")
    code, last = run.send(signal.SIGINT, signal.SIGSTOP, signal.SIGINT, signal.SIGCONT).ended()
    assert (
        code == Exit.INTERRUPTED
        and last.endswith("run the same command again")
        or (
            newest(tmp_path / "run")  # Both signals came as one.
        )
    )


def several(config, workdir, count, *arguments):
    shared = [f"--coordinator=localhost:{free_port()}", f"--processes={count}", *arguments]
    return [
        Started(config, workdir, *shared, f"--process={index}", *["--config.run.seed=0"] * index)
        for index in range(count)
    ]


@pytest.mark.parametrize("which", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_sigterm_to_one_of_two_processes_ends_both_after_the_same_saved_step(
    config, tmp_path, which
):
    runs = several(config, tmp_path / "run", 2)
    runs[0].wait_for(f"{STEP}.*train")
    runs[which].send(signal.SIGTERM)
    ends = [run.ended() for run in runs]
    step = newest(tmp_path / "run")
    message = f"error: SIGTERM came; step {step} is saved"
    assert step and all(code == Exit.PREEMPTED and message in last for code, last in ends), [
        run.said() for run in runs
    ]


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
def test_a_process_that_is_killed_is_missed_by_the_other(config, tmp_path, which):
    runs = several(config, tmp_path / "run", 2)
    runs[0].wait_for(f"{STEP}.*train")
    runs[which].send(signal.SIGKILL)
    code, last = runs[1 - which].ended()
    if which == 0:  # JAX's own thread ends a process that has lost the coordinator.
        assert code == -signal.SIGABRT, runs[1].said()
        return
    assert code == Exit.PEER_LOST, runs[0].said()
    assert "another process of the run has ended without a message" in last


@pytest.mark.slow
def test_a_full_disk_is_told_in_one_message(config, tmp_path):
    """No file may become larger than a limit, as on a full disk. Then there is room again."""
    arguments = ["--config.run.checkpoint_every=50"]
    run = Started(config, tmp_path / "run", *arguments).wait_for(f"{STEP}.*train")
    limit = resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (50_000, limit[1]))
    Started.sent = time.monotonic()
    code, last = run.ended()
    assert code == Exit.STORAGE, run.said()
    assert f"the disk of {tmp_path / 'run'}" in last and "make room" in last
    assert "Traceback" not in run.said() and run.said().count("File too large") == 1, run.said()
    saved = newest(tmp_path / "run") or 0
    again = Started(config, tmp_path / "run", *arguments, f"--config.run.steps={saved + 50}")
    assert again.ended()[0] == Exit.DONE and newest(tmp_path / "run") == saved + 50, again.said()


def test_a_loader_process_leaves_every_signal_to_the_trainer(monkeypatch):
    """Which still needs batches before it saves."""
    ignored = {}
    monkeypatch.setattr(loader_process.signal, "signal", ignored.__setitem__)
    loader_process.begin(0, 1)
    assert ignored == dict.fromkeys(signals.CODES, signal.SIG_IGN)


def loaders(run):
    """Processes that the run has started, directly or not."""
    parents = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")")[1].split()[1])
        except (OSError, IndexError):
            continue
    found = {run.process.pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {run.process.pid}


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=["term", "hang-up", "kill"]
)
def test_no_loader_process_outlives_the_run(config, tmp_path, number):
    """Both signals go to all of them, as Slurm, a terminal and ``kill -- -GROUP`` send them."""
    run = Started(config, tmp_path / "run", "--config.loader.workers=2")
    run.wait_for(f"{STEP}.*train")
    children = loaders(run)
    assert len(children) >= 2
    if number != signal.SIGKILL:
        for child in children:
            os.kill(child, number)
    code, _ = run.send(number).ended()
    saves = number != signal.SIGKILL
    assert code == (Exit.PREEMPTED if saves else -number), run.said()
    assert bool(newest(tmp_path / "run")) == saves
    deadline = time.monotonic() + 20
    while any(pathlib.Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline, children
        time.sleep(0.1)
