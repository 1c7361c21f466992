"""One table of exit codes: in errors.py, in the launch scripts and in docs/launch.md."""

import inspect
import subprocess

import pytest

from tests.tiny import TOP
from vlbeit_jax import errors
from vlbeit_jax.errors import MEANINGS, Exit, Reported

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, Reported | KeyboardInterrupt) and kind is not Reported
]


def table():
    """The rows of docs/launch.md, as errors.py says them."""
    rows = [
        "| exit code | the command ended, because | started again | what to do |",
        "|---|---|---|---|",
    ]
    for code, (ended, restart, advice) in MEANINGS.items():
        rows.append(f"| {code.value} | {ended} | {'yes' if restart else 'no'} | {advice} |")
    return "\n".join(rows)


def test_every_code_has_a_meaning_and_one_kind_of_error():
    assert list(MEANINGS) == list(Exit)
    codes = [kind.code for kind in KINDS]
    assert sorted(codes) == sorted(set(Exit) - {Exit.DONE, Exit.DEFECT})


def test_the_page_has_the_table():
    assert table() in (TOP / "docs" / "launch.md").read_text()


@pytest.mark.parametrize("code", [*Exit, 134, 137, 143])
def test_launch_scripts_start_again_where_it_helps(code):
    """A code that no command gives is that of a process that a signal has ended."""
    script = f"source launch/common.sh; if may_succeed {int(code)}; then echo yes; fi"
    done = subprocess.run(["bash", "-c", script], cwd=TOP, capture_output=True, text=True)
    may = code not in MEANINGS or MEANINGS[Exit(code)].restart
    assert done.returncode == 0 and done.stdout == ("yes\n" if may else ""), done.stderr


def test_pods_that_cannot_succeed_fail_the_whole_jobset():
    final = [int(code) for code in Exit if code and not MEANINGS[code].restart]
    assert f"values: {final}" in (TOP / "launch" / "gke.sh").read_text()


def test_restarts_are_counted_from_the_last_saved_step(tmp_path):
    """Three restarts without a save, then one after each save."""
    script = f"""
    source launch/common.sh
    arguments=(--config=x --workdir {tmp_path}/run)
    attempt=0 saved_before=$(newest_step "${{arguments[@]}}")
    for step in - - - 8 - 10 010.tmp; do
      [[ $step == - ]] || mkdir -p {tmp_path}/run/checkpoints/$step
      count_restart "${{arguments[@]}}"
      echo $attempt
    done"""
    done = subprocess.run(["bash", "-c", script], cwd=TOP, capture_output=True, text=True)
    assert done.stdout.split() == ["1", "2", "3", "1", "2", "1", "2"], done.stderr
