"""launch/gpu.sh: bounded restarts on one machine, and signals."""

import os
import signal
import subprocess
import sys

import pytest

from tests.launch.stand_ins import WORDS, alive, copy_of_launch, executable, wait_for

# Like a loader process, it does not ignore Ctrl-C; bash makes its children do so.
CHILD = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_DFL)
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
time.sleep(60)
"""
# A shell starts what runs in the background with SIGINT ignored, and bash then keeps it so. This
# becomes the command that it is given, in the same process, with SIGINT as in a terminal.
WITH_SIGINT = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("codes", "starts", "ended"), [([0], 1, 0), ([2], 1, 2), ([1, 1, 0], 3, 0), ([1], 3, 1)]
)
def test_a_crash_is_restarted_but_a_usage_error_is_not(tmp_path, codes, starts, ended):
    """The interpreter is a stand-in that returns the next exit code, and the last one for ever."""
    launch, turns = copy_of_launch(tmp_path), tmp_path / "turns"
    turns.write_text("\n".join(map(str, codes)) + "\n")
    python = executable(
        tmp_path / "python",
        f'#!/usr/bin/env bash\nprintf "%s\\0" "$@" >>{tmp_path}/got\ncode=$(head -1 {turns})\n'
        f"(($(wc -l <{turns}) == 1)) || sed -i 1d {turns}\nexit $code\n",
    )
    environment = os.environ | {"PYTHON": str(python), "RETRY_SECONDS": "0", "MAX_RESTARTS": "2"}
    done = subprocess.run(
        ["bash", launch / "gpu.sh", *WORDS],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == ended, done.stderr
    got = (tmp_path / "got").read_bytes().decode().split("\0")[:-1]
    assert got == ["-m", "vlbeit_jax.main", *WORDS] * starts


@pytest.mark.parametrize("sent", ["TERM", "INT"])
def test_a_signal_ends_the_run_without_a_restart(tmp_path, sent):
    """The run and its children get the signal, the script waits for the run, no process is left."""
    launch, child = copy_of_launch(tmp_path), tmp_path / "child"
    (tmp_path / "child.py").write_text(CHILD)
    python = executable(
        tmp_path / "python",
        f"#!/usr/bin/env bash\ntrap 'sleep 0.5; echo saved >>{tmp_path}/said; exit 143' TERM INT\n"
        f"echo here >>{tmp_path}/started\n{sys.executable} {tmp_path}/child.py {child} &\nwait\n",
    )
    script = subprocess.Popen(
        [sys.executable, "-c", WITH_SIGINT, "bash", launch / "gpu.sh", "--x"],
        env=os.environ | {"PYTHON": str(python), "RETRY_SECONDS": "0"},
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(child.exists)
    wait_for(child.read_text)
    script.send_signal(getattr(signal, f"SIG{sent}"))
    said = script.communicate(timeout=300)[1]
    assert script.returncode == 143 and "restart" not in said
    assert (tmp_path / "said").read_text() == "saved\n"
    assert (tmp_path / "started").read_text() == "here\n"
    wait_for(lambda: not alive(int(child.read_text())))
