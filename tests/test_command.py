"""The command line: mistakes are answered before anything starts."""

import subprocess
import sys

import pytest

from tests.tiny import TOP
from vlbeit_jax.config_parse import describe


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--config.run.stepz=3"], ["stepz", "Did you mean", "steps"]),
        (["--config.run.steps=many"], ["--config.run.steps=many"]),
        (["--config.run.steps=0"], ["config.run.steps=0: must be > 0"]),
        (["--config.model.heads=5", "--config.run.steps=7"], ["heads=5", "warmup_steps=200", "run.steps=7", "text_tokenizer is empty"]),
        (["--config.data.pair.sources=('a',1)"], ["config.data.pair.sources", "str"]),
        (["--wrkdir=W"], ["wrkdir", "Did you mean", "workdir"]),
        (["--stepz=3"], ["stepz"]),
        (["stray"], ["stray", "--"]),
        (["--config=no/such/file.py"], ["no/such/file.py"]),
        (["--config=configs/pretrain_base.py:huge"], ["huge", "tiny, small, base, large"]),
    ],
    ids=lambda value: value[0],
)
def test_the_command_refuses_mistakes_before_it_starts(tmp_path, arguments, said):
    command = [sys.executable, "-m", "vlbeit_jax.main", "--config=configs/sample.py", f"--workdir={tmp_path}/X", *arguments]
    ended = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2 and ended.stdout == "", ended
    assert ended.stderr.startswith("error: ") and "Traceback" not in ended.stderr
    assert all(word in ended.stderr for word in said), ended.stderr
    assert not (tmp_path / "X").exists()


def test_the_command_needs_its_flags_and_helps():
    ended = subprocess.run([sys.executable, "-m", "vlbeit_jax.main"], cwd=TOP, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2 and "--config" in ended.stderr and "--workdir" in ended.stderr and "Traceback" not in ended.stderr
    ended = subprocess.run([sys.executable, "-m", "vlbeit_jax.main", "--help"], cwd=TOP, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0 and describe() in ended.stdout
