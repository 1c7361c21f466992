"""launch/measure.py: stages are measured, and run again if inputs change."""

import json
import shlex
import signal
import subprocess
import sys

import pytest

from tests.launch.stand_ins import LAUNCH, wait_for

MEASURE = [sys.executable, LAUNCH / "measure.py"]


def stage(workdir, output, inputs, code):
    """Runs a stage whose command is Python code."""
    words = ["run", workdir, output, inputs, "--", sys.executable, "-c", code]
    return subprocess.run([*MEASURE, *words], cwd=workdir, capture_output=True, text=True)


@pytest.mark.parametrize("code", [0, 3])
def test_a_stage_is_measured_and_passes_its_exit_code_on(tmp_path, code):
    work = f"x = bytearray(200_000_000); raise SystemExit({code})"
    for runs in (1, 2):  # A stage without an output runs every time.
        assert stage(tmp_path, "", "", work).returncode == code
        lines = (tmp_path / "stages.jsonl").read_text().splitlines()
        line = json.loads(lines[-1])
        assert len(lines) == runs and line["exit_code"] == code
        assert line["peak_memory_bytes"] > 200_000_000 and line["wall_seconds"] >= 0


# A run: it says that it is there, and after a signal it saves and ends.
SAVES = """
import pathlib, signal, sys, time
def save(number, frame):
    time.sleep(0.3)
    pathlib.Path("saved").write_text(signal.Signals(number).name)
    sys.exit(75)
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, save)
pathlib.Path("there").touch()
time.sleep(60)
"""


def signalled(arguments, sent, folder):
    """Sends a signal to one process once the run in it is there; returns its exit code."""
    process = subprocess.Popen(arguments, cwd=folder)
    wait_for((folder / "there").exists)
    process.send_signal(sent)
    return process.wait(30)


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP], ids=lambda sent: sent.name)
def test_a_signal_to_a_stage_reaches_its_command_which_saves(tmp_path, sent):
    words = ["run", tmp_path, "", "", "--", sys.executable, "-c", SAVES]
    assert signalled([*MEASURE, *words], sent, tmp_path) == 75
    assert (tmp_path / "saved").read_text() == sent.name
    assert json.loads((tmp_path / "stages.jsonl").read_text())["exit_code"] == 75


@pytest.mark.parametrize("sent", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_to_a_script_ends_its_stage_and_no_other_begins(tmp_path, sent):
    script = tmp_path / "script.sh"
    script.write_text(
        f"source {LAUNCH}/stages.sh\nworkdir={tmp_path} python={sys.executable}\n"
        f"ln -s {LAUNCH} launch\nstage '' '' -c {shlex.quote(SAVES)}\ntouch another\n"
    )
    number = signal.Signals[sent]
    # A background job of a shell, such as this test, may ignore Ctrl-C.
    command = ["env", "--default-signal=INT", "bash", script]
    assert signalled(command, number, tmp_path) == 75
    assert (tmp_path / "saved").read_text() == sent and not (tmp_path / "another").exists()


@pytest.fixture
def model(tmp_path):
    """An input of stages; the output is a copy of it."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("one")
    return tmp_path / "model" / "weights"


COPY = "open('out', 'w').write(open('model/weights').read())"


def test_an_output_is_made_again_when_input_or_command_has_changed(model, tmp_path):
    def made(code=COPY):
        done = stage(tmp_path, "out", "model sample:pairs", code)
        assert done.returncode == 0, done.stderr
        return (tmp_path / "out").read_text(), "already finished" in done.stdout

    assert made() == ("one", False)
    assert made() == ("one", True)
    model.write_text("two")
    assert made() == ("two", False)
    assert made(f"{COPY}; open('out', 'a').write('!')") == ("two!", False)


def test_an_incomplete_output_is_made_again(model, tmp_path):
    half = "open('out', 'w').write('half'); raise SystemExit(1)"
    for _ in range(2):
        assert stage(tmp_path, "out", "model", half).returncode == 1
    assert (tmp_path / "out").read_text() == "half"
    assert stage(tmp_path, "out", "model", COPY).returncode == 0
    assert (tmp_path / "out").read_text() == "one"


def test_a_folder_that_no_stage_has_made_is_left_alone(model, tmp_path):
    done = stage(tmp_path, "model", "", COPY)
    assert done.returncode == 2 and "model exists, but" in done.stderr and model.exists()


def test_results_join_evaluation_codebook_time_and_memory(tmp_path):
    (tmp_path / "vqkd").mkdir()
    (tmp_path / "vqkd" / "metrics.jsonl").write_text(
        '{"split": "validation", "codes_used": 30}\n{"split": "train", "codes_used": 9}\n'
    )
    (tmp_path / "vqkd" / "config.json").write_text('{"task": {"model": {"codes": 32}}}')
    (tmp_path / "evaluation.json").write_text('{"mim": {"accuracy": 0.5}}')
    (tmp_path / "stages.jsonl").write_text(
        '{"wall_seconds": 1.5, "peak_memory_bytes": 7}\n'
        '{"wall_seconds": 2.0, "peak_memory_bytes": 5}\n'
    )
    assert subprocess.run([*MEASURE, "results", tmp_path]).returncode == 0
    found = json.loads((tmp_path / "results.json").read_text())
    assert found == {
        "mim": {"accuracy": 0.5},
        "codes_used": 30,
        "codes": 32,
        "wall_seconds": 3.5,
        "peak_memory_bytes": 7,
    }
