"""Launch scripts: well-formed, with usage errors, measured stages, and bounded restarts on one machine."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.tiny import TOP

LAUNCH = TOP / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *(TOP / "tests").glob("*.sh"), TOP / ".ci" / "run"])
OURS = [
    path
    for path in SCRIPTS
    if path.parent == LAUNCH
    and path.name in ("gke.sh", "gpu.sh", "sample.sh", "slurm.sh", "tpu_vm.sh", "worker.sh")
]
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
    for command in (
        ["shellcheck", "--external-sources", script],
        ["shfmt", "-i", "2", "-ci", "-d", script],
    ):
        done = subprocess.run(
            command, cwd=TOP, env=os.environ | {"PATH": path}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["one", "two"]])
def test_the_sample_explains_its_use(arguments):
    done = subprocess.run(
        ["bash", LAUNCH / "sample.sh", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 2 and "usage: launch/sample.sh [WORKDIR]" in done.stderr


def test_an_unknown_set_of_requirements_is_refused():
    done = subprocess.run(["bash", LAUNCH / "install.sh", "tests"], capture_output=True, text=True)
    assert done.returncode == 2 and "tests" in done.stderr


def misleading(folder, script):
    """A symlink to a script, ``link`` in a folder, and an environment whose CDPATH leads cd elsewhere and makes it print where."""
    for name in ("launch", "sample_run"):
        (folder / "decoy" / name).mkdir(parents=True)
    (folder / "link").symlink_to(script)
    return os.environ | {"CDPATH": str(folder / "decoy")}


@pytest.mark.parametrize("script", OURS, ids=lambda path: path.name)
@pytest.mark.parametrize("called", ["by a relative path", "through a symlink", "through two"])
def test_scripts_find_their_checkout(tmp_path, script, called):
    """So far that they can refuse a mistake; what sample.sh and worker.sh do then is below."""
    environment = misleading(tmp_path, script)
    (tmp_path / "other").symlink_to("link")
    (tmp_path / "there").mkdir()
    there, command = {
        "by a relative path": (TOP, f"launch/{script.name}"),
        "through a symlink": (tmp_path / "there", "../link"),
        "through two": (tmp_path / "there", "../other"),
    }[called]
    done = subprocess.run(
        ["bash", command, "--dry-run", "--x"],
        cwd=there,
        env=environment,
        capture_output=True,
        text=True,
    )
    said = {
        "gpu.sh": f"$ {LAUNCH}/install.sh cuda",
        "sample.sh": "usage: launch/sample.sh",
        "slurm.sh": "set NODES GPUS",
    }
    said |= {"worker.sh": "usage: launch/worker.sh"}
    assert done.returncode == (0 if script.name == "gpu.sh" else 2), done.stderr
    assert said.get(script.name, "unknown verb '--x'") in done.stderr and not done.stdout, (
        done.stderr
    )


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
    done = subprocess.run(
        ["bash", tmp_path / "launch" / "gpu.sh", *WORDS],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == ended, done.stderr
    got = (tmp_path / "got").read_bytes().decode().split("\0")[:-1]
    tries = {(0,): 1, (2,): 1, (1, 1, 0): 3, (1,): 3}[tuple(codes)]
    assert got == ["-m", "vlbeit_jax.main", *WORDS] * tries


@pytest.mark.parametrize("sent", ["TERM", "INT"])
def test_a_signal_ends_the_run_and_nothing_starts_again(tmp_path, sent):
    """The run gets it together with its children, is waited for, and leaves no process behind."""
    shutil.copytree(LAUNCH, tmp_path / "launch")
    (tmp_path / "launch" / "install.sh").write_text("#!/usr/bin/env bash\n")
    stub = tmp_path / "python"
    child = (
        tmp_path / "child.py"
    )  # As loader processes do, it does not ignore Ctrl-C, which bash has its children do.
    child.write_text(
        "import os, pathlib, signal, time\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\n"
        f"pathlib.Path({str(tmp_path / 'child')!r}).write_text(str(os.getpid()))\ntime.sleep(60)\n"
    )
    stub.write_text(
        f"#!/usr/bin/env bash\ntrap 'sleep 0.5; echo saved >>{tmp_path}/said; exit 143' TERM INT\n"
        f"echo here >>{tmp_path}/started\n{sys.executable} {child} &\nwait\n"
    )
    stub.chmod(0o755)
    environment = os.environ | {"PYTHON": str(stub), "RETRY_SECONDS": "0"}
    script = subprocess.Popen(
        ["bash", tmp_path / "launch" / "gpu.sh", "--x"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for((tmp_path / "child").exists)
    wait_for((tmp_path / "child").read_text)
    script.send_signal(getattr(signal, f"SIG{sent}"))
    said = script.communicate(timeout=300)[1]
    assert script.returncode == 143 and "restart" not in said
    assert (tmp_path / "said").read_text() == "saved\n" and len(
        (tmp_path / "started").read_text().split()
    ) == 1
    wait_for(lambda: not alive(int((tmp_path / "child").read_text())))


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(process):
    stat = pathlib.Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
