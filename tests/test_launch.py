"""Launch scripts: well-formed, with usage errors, and measured stages."""

import json
import subprocess
import sys

import pytest

from tests.tiny import TOP

SCRIPTS = sorted([*(TOP / "launch").glob("*.sh"), TOP / "tests" / "run.sh", TOP / ".ci" / "run"])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_strict_and_parse(script):
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text or script.name == "run"
    assert subprocess.run(["bash", "-n", script]).returncode == 0


@pytest.mark.parametrize("arguments", [["--help"], ["one", "two"]])
def test_the_sample_explains_its_use(arguments):
    done = subprocess.run(["bash", TOP / "launch" / "sample.sh", *arguments], capture_output=True, text=True)
    assert done.returncode == 2 and "usage: launch/sample.sh [WORKDIR]" in done.stderr


def test_an_unknown_set_of_requirements_is_refused():
    done = subprocess.run(["bash", TOP / "launch" / "install.sh", "tests"], capture_output=True, text=True)
    assert done.returncode == 2 and "tests" in done.stderr


@pytest.mark.parametrize("code", [0, 3])
def test_a_stage_passes_its_exit_code_on_and_is_measured(tmp_path, code):
    stages = tmp_path / "stages.jsonl"
    work = f"x = bytearray(200_000_000); raise SystemExit({code})"
    done = subprocess.run([sys.executable, TOP / "launch" / "measure.py", "run", stages, "--", sys.executable, "-c", work])
    assert done.returncode == code
    line = json.loads(stages.read_text())
    assert line["exit_code"] == code and line["peak_memory_bytes"] > 200_000_000 and line["wall_seconds"] >= 0


def test_results_join_evaluation_codebook_time_and_memory(tmp_path):
    (tmp_path / "vqkd").mkdir()
    (tmp_path / "vqkd" / "metrics.jsonl").write_text('{"split": "validation", "codes_used": 30}\n{"split": "train", "codes_used": 9}\n')
    (tmp_path / "vqkd" / "config.json").write_text('{"visual_tokenizer": {"codes": 32}}')
    (tmp_path / "evaluation.json").write_text('{"mim": {"accuracy": 0.5}}')
    (tmp_path / "stages.jsonl").write_text('{"wall_seconds": 1.5, "peak_memory_bytes": 7}\n{"wall_seconds": 2.0, "peak_memory_bytes": 5}\n')
    assert subprocess.run([sys.executable, TOP / "launch" / "measure.py", "results", tmp_path]).returncode == 0
    found = json.loads((tmp_path / "results.json").read_text())
    assert found == {"mim": {"accuracy": 0.5}, "codes_used": 30, "codes": 32, "wall_seconds": 3.5, "peak_memory_bytes": 7}
