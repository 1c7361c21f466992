"""A run goes on if nobody reads its output, and no file gets what is printed."""

import os
import pty
import subprocess
import sys

import pytest

from tests import tiny

# What a run and a command do with their outputs. It says how it ends in a file.
PROGRAM = """
import pathlib, sys
from vlbeit_jax import cli
from vlbeit_jax.errors import Preempted
from vlbeit_jax.runtime.writer import Writer
folder = pathlib.Path(sys.argv.pop())
def main():
    writer = Writer(folder, 0, 9)
    for step in range(1, 4):
        writer.progress("loss 1")
        writer.write(step, "train", {"mlm/loss": 1.0})
        print("a step")
    writer.close()
    raise Preempted("step 3 is saved")
sys.argv = sys.argv[:1]
cli.run(main, "a command")
"""


def run(folder, **streams):
    line = [sys.executable, "-c", PROGRAM, str(folder)]
    return subprocess.Popen(line, cwd=tiny.TOP, **streams)


@pytest.mark.parametrize("what", ["pipe", "terminal", "closed"])
def test_a_run_whose_output_nobody_reads_goes_on_and_keeps_its_exit_code(tmp_path, what):
    if what == "closed":
        shell = 'exec "$@" <&- >&- 2>&-'
        line = ["sh", "-c", shell, "sh", sys.executable, "-c", PROGRAM, str(tmp_path)]
        process = subprocess.Popen(line, cwd=tiny.TOP)
    else:
        read, write = os.pipe() if what == "pipe" else pty.openpty()
        process = run(tmp_path, stdout=write, stderr=write)
        os.close(write)
        os.close(read)
    assert process.wait(60) == 75
    assert [line["step"] for line in tiny.metrics_of(tmp_path)] == [1, 2, 3]
    said = (tmp_path / "log.txt").read_text()
    assert said.count("step 3/9 train") == 1 and "a step" not in said
