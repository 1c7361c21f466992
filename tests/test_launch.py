"""Launch scripts: well-formed, with usage errors, measured stages, and bounded restarts on one machine."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.tiny import TOP

LAUNCH = TOP / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *(TOP / "tests").glob("*.sh"), TOP / ".ci" / "run"])
# Whatever a shell could do to a word.
WORDS = [
    "--config=configs/sample.py",
    "--a=two words",
    "--b='quoted'",
    '--c="double"',
    "--d=$(touch hacked)`id`;*?{x,y}",
    "--e=",
    "--f=ä\\n",
]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_strict_and_parse(script):
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text or script.name == "run"
    assert subprocess.run(["bash", "-n", script]).returncode == 0


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_and_shfmt_find_nothing(script):
    tools = TOP / ".venv" / "bin"
    path = f"{tools}:{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    for command in (["shellcheck", "--external-sources", script], ["shfmt", "-i", "2", "-ci", "-d", script]):
        done = subprocess.run(command, cwd=TOP, env=os.environ | {"PATH": path}, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["one", "two"]])
def test_the_sample_explains_its_use(arguments):
    done = subprocess.run(["bash", LAUNCH / "sample.sh", *arguments], capture_output=True, text=True)
    assert done.returncode == 2 and "usage: launch/sample.sh [WORKDIR]" in done.stderr


def test_an_unknown_set_of_requirements_is_refused():
    done = subprocess.run(["bash", LAUNCH / "install.sh", "tests"], capture_output=True, text=True)
    assert done.returncode == 2 and "tests" in done.stderr


@pytest.mark.parametrize("code", [0, 3])
def test_a_stage_passes_its_exit_code_on_and_is_measured(tmp_path, code):
    stages = tmp_path / "stages.jsonl"
    work = f"x = bytearray(200_000_000); raise SystemExit({code})"
    done = subprocess.run([sys.executable, LAUNCH / "measure.py", "run", stages, "--", sys.executable, "-c", work])
    assert done.returncode == code
    line = json.loads(stages.read_text())
    assert line["exit_code"] == code and line["peak_memory_bytes"] > 200_000_000 and line["wall_seconds"] >= 0


def test_results_join_evaluation_codebook_time_and_memory(tmp_path):
    (tmp_path / "vqkd").mkdir()
    (tmp_path / "vqkd" / "metrics.jsonl").write_text('{"split": "validation", "codes_used": 30}\n{"split": "train", "codes_used": 9}\n')
    (tmp_path / "vqkd" / "config.json").write_text('{"visual_tokenizer": {"codes": 32}}')
    (tmp_path / "evaluation.json").write_text('{"mim": {"accuracy": 0.5}}')
    (tmp_path / "stages.jsonl").write_text('{"wall_seconds": 1.5, "peak_memory_bytes": 7}\n{"wall_seconds": 2.0, "peak_memory_bytes": 5}\n')
    assert subprocess.run([sys.executable, LAUNCH / "measure.py", "results", tmp_path]).returncode == 0
    found = json.loads((tmp_path / "results.json").read_text())
    assert found == {"mim": {"accuracy": 0.5}, "codes_used": 30, "codes": 32, "wall_seconds": 3.5, "peak_memory_bytes": 7}


@pytest.mark.parametrize(("codes", "ended"), [([0], 0), ([2], 2), ([1, 1, 0], 0), ([1], 1)])
def test_one_node_starts_again_after_a_crash_but_not_after_a_mistake(tmp_path, codes, ended):
    """A copy of launch/ whose install.sh does nothing, and an interpreter that ends as it is told."""
    shutil.copytree(LAUNCH, tmp_path / "launch")
    (tmp_path / "launch" / "install.sh").write_text("#!/usr/bin/env bash\n")
    turns = tmp_path / "turns"
    turns.write_text("\n".join(map(str, codes)) + "\n")
    stub = tmp_path / "python"
    stub.write_text(
        f'#!/usr/bin/env bash\nprintf "%s\\0" "$@" >>{tmp_path}/got\ncode=$(head -1 {turns})\n'
        f"(($(wc -l <{turns}) == 1)) || sed -i 1d {turns}\nexit $code\n"
    )
    stub.chmod(0o755)
    environment = os.environ | {"PYTHON": str(stub), "RETRY_SECONDS": "0", "MAX_RESTARTS": "2"}
    done = subprocess.run(["bash", tmp_path / "launch" / "gpu.sh", *WORDS], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == ended, done.stderr
    got = (tmp_path / "got").read_bytes().decode().split("\0")[:-1]
    tries = {(0,): 1, (2,): 1, (1, 1, 0): 3, (1,): 3}[tuple(codes)]
    assert got == ["-m", "vlbeit_jax.main", *WORDS] * tries


def test_a_worker_runs_one_thing_of_a_name_and_can_be_stopped(tmp_path):
    stub = tmp_path / "python"
    stub.write_text("#!/usr/bin/env bash\necho here\nsleep 60 &\nwait\n")
    stub.chmod(0o755)
    environment = os.environ | {"PYTHON": str(stub), "RUNS": str(tmp_path / "runs"), "STOP_SECONDS": "5"}

    def worker(*arguments):
        return subprocess.run(["bash", LAUNCH / "worker.sh", *arguments], env=environment, capture_output=True, text=True, timeout=30)

    assert worker("status", "a").stdout == "none\n"
    assert worker("start", "a", "--x").returncode == 0
    assert worker("status", "a").stdout.startswith("running ")
    again = worker("start", "a", "--x")
    assert again.returncode == 2 and "running already" in again.stderr
    assert worker("log", "a").stdout == "here\n"
    assert worker("stop", "a").returncode == 0
    assert not worker("status", "a").stdout.startswith("running") and worker("stop", "a").returncode == 0
