"""Launch scripts count restarts by the steps that a run has saved, in a bucket too."""

import os
import subprocess
import sys

import pytest

from tests.processes import TOP


def bash(script: str, *arguments: object) -> subprocess.CompletedProcess:
    line = ["bash", "-c", f"source launch/common.sh; {script}", "script", *map(str, arguments)]
    environment = os.environ | {"PYTHON": sys.executable}
    return subprocess.run(line, cwd=TOP, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("joined", [True, False])
def test_the_newest_complete_step_is_found(folder, joined):
    for step in ("3", "12"):
        (folder / "checkpoints" / step / "commit_success.txt").write_text("")
    (folder / "checkpoints" / "15" / "unfinished").write_text("")
    given = [f"--workdir={folder}"] if joined else ["--workdir", folder]
    found = bash('newest_step "$@"', "--config=c.py", *given)
    assert found.stdout == "12\n", found.stderr


def test_a_run_that_has_saved_nothing_is_at_step_0(folder):
    assert bash('newest_step "$@"', f"--workdir={folder}").stdout == "0\n"


def test_scripts_that_need_a_folder_say_so():
    ended = subprocess.run(
        ["launch/sample.sh", "gs://bucket/x"], cwd=TOP, capture_output=True, text=True
    )
    assert ended.returncode == 2 and "gs://bucket/x: launch/sample.sh measures" in ended.stderr
    assert not (TOP / "gs:").exists()
