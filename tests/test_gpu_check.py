"""tools/gpu_check.sh: its table, its end, and a rehearsal of every stage on the CPU."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.tiny import TOP
from tools import gpu_runner, gpu_table

HEAD = {
    "date": "2026-01-02",
    "card": "NVIDIA H200",
    "driver": "580.1",
    "python": "3.12.3",
    "jax": "0.11.2",
    "rehearsal": False,
}


def start(*arguments, **environment):
    # The tests' simulated devices would be seven too many for the PyTorch peer.
    variables = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | {
        "PYTHON": sys.executable,
        **environment,
    }
    command = ["bash", str(TOP / "tools" / "gpu_check.sh"), *map(str, arguments)]
    return subprocess.Popen(
        command, cwd="/", env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_the_table_says_what_was_measured_and_what_was_not():
    rows = [
        {
            "row": "base",
            "batch": 64,
            "samples_per_second": 2043.4,
            "model_flops_per_second": 2.247e14,
            "mfu": 0.2271,
            "seconds": 9,
        },
        {"row": "large", "error": "not run: time ended", "seconds": 0},
    ]
    text = gpu_table.markdown(HEAD, rows)
    assert "| base | 64 | 2,043 | 224.7 | 22.7% |  | 9 |  |" in text
    assert "| large |  |  |  |  |  | 0 | **not run: time ended** |" in text
    assert "Measured on 2026-01-02: NVIDIA H200; driver 580.1, python 3.12.3, jax 0.11.2." in text
    assert "no figure here means anything" in gpu_table.markdown({**HEAD, "rehearsal": True}, rows)


def test_without_a_gpu_a_wrong_stage_or_an_old_folder_it_says_what_to_do(tmp_path):
    for arguments, said in (
        ([tmp_path / "new"], "nvidia-smi shows no GPU here; --rehearse"),
        (
            [tmp_path / "new", "--rehearse", "--only=bas"],
            "no stage bas; there are core_tests, base",
        ),
        ([tmp_path, "--rehearse"], "File exists; name a new folder"),
    ):
        process = start(*arguments, PATH="/usr/bin:/bin")
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 2 and said in out, out
    assert not (tmp_path / "new").exists()


def test_it_ends_in_time_and_says_so(tmp_path):
    began, process = (
        time.monotonic(),
        start(tmp_path / "out", "--rehearse", "--minutes=0.2", "--only=base,large"),
    )
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and time.monotonic() - began < 30
    rows = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    assert [row["error"] for row in rows[1:]] == ["time ended", "not run: time ended"], out


def test_a_failed_command_is_a_row_with_its_reason():
    assert gpu_runner.failure(0, "anything") == {}
    assert (
        gpu_runner.failure(1, "some\nValueError: 3 is too many\nmore")["error"]
        == "exit code 1: ValueError: 3 is too many"
    )
    assert (
        "RESOURCE_EXHAUSTED"
        in gpu_runner.failure(2, "error: RESOURCE_EXHAUSTED: out of memory")["error"]
    )


@pytest.mark.parametrize("handler", [signal.SIG_IGN, signal.default_int_handler])
def test_a_command_is_interrupted_so_many_seconds_after_its_first_line(tmp_path, handler):
    """Also where this process ignores Ctrl-C, as in a background job of a shell."""
    before = signal.signal(signal.SIGINT, handler)
    try:
        _interrupted(tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupted(tmp_path):
    check = gpu_runner.Check(tmp_path, time.monotonic() + 60, rehearse=True, memory=1)
    opened = f"file = open({str(tmp_path / 'first')!r}, 'w')"
    work = f"{opened}; time.sleep(1); file.write('{{}}\\n'); file.flush(); time.sleep(50)"
    command = ["timeit", "-n", "1", "-s", "import time", work]
    began = time.monotonic()
    code, said = check.run("slow", command, gpu_runner.Stop(tmp_path / "first", 1.0))
    assert 2.0 <= time.monotonic() - began < 30
    assert code not in (0, 124) and "KeyboardInterrupt" in said


@pytest.mark.slow
def test_a_rehearsal_runs_every_stage(tmp_path):
    process = start(tmp_path / "out", "--rehearse", "--minutes=25")
    out, _ = process.communicate(timeout=1600)
    assert process.returncode == 0, out
    rows = [
        json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()
    ][1:]
    tests, *measured, attention = rows
    assert tests["tests"]["passed"] > 20 and "failed" not in tests["tests"]
    assert len(measured) == 7 and all(row["samples_per_second"] > 0 for row in measured)
    assert rows[3]["first_step"]["grad_norm"]["relative"] < 0.02
    assert attention["milliseconds"] > 0 and 0 < attention["largest_error"] < 0.05
