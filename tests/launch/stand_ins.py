"""Stand-ins for gcloud, kubectl and sbatch, and what tests of several launch scripts share."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

from tests.tiny import TOP

LAUNCH = TOP / "launch"
# Arguments with everything that a shell could change in a word.
WORDS = [
    "--config=configs/sample.py",
    "--a=two words",
    "--b='quoted'",
    '--c="double"',
    "--d=$(touch hacked)`id`;*?{x,y}",
    "--e=",
    "--f=ä\\n",
]
TPU = {
    "NAME": "run-1",
    "PROJECT": "p",
    "ZONE": "z",
    "ACCELERATOR": "v5litepod-256",
    "RUNTIME": "v2",
    "SPOT": "true",
}
GKE = {
    "NAME": "run-1",
    "IMAGE": "r/i@sha256:0",
    "ACCELERATOR": "tpu-v5-lite-podslice",
    "TOPOLOGY": "16x16",
    "HOSTS": "64",
    "CHIPS": "4",
    "CLAIM": "c",
    "SHARED_MEMORY": "2Gi",
}
PROGRAMS = ("gcloud", "kubectl", "sbatch")

# A stand-in records its arguments and input. Then it answers as the file `behaviour` says: by the
# first key that occurs in its arguments, with an exit code, an error message, or output. Of several
# answers each is given once, and the last one for ever.
STUB = """#!{python}
import json, os, pathlib, shutil, subprocess, sys
home = pathlib.Path(__file__).parent
given = sys.argv[1:]
text = sys.stdin.read() if "--filename=-" in given else ""
with (home / "calls").open("a") as calls:
    calls.write(json.dumps([pathlib.Path(__file__).name, given, text]) + "\\n")
behaviour = json.loads((home / "behaviour").read_text())
commands = [word.removeprefix("--command=") for word in given if word.startswith("--command=")]
for key, answers in behaviour.items():
    if key in " ".join(given) and answers:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        (home / "behaviour").write_text(json.dumps(behaviour))
        if isinstance(answer, int) and answer:
            sys.exit(answer)
        if isinstance(answer, dict):
            print(answer["error"], file=sys.stderr)
            sys.exit(1)
        print(answer)
        sys.exit(0)
if "scp" in given and behaviour.get("run here"):
    source, target = given[given.index("scp") + 1 : given.index("scp") + 3]
    shutil.copy(source, home / "remote" / target.partition(":")[2])
if commands and behaviour.get("run here"):
    sys.exit(subprocess.run(["bash", "-c", commands[0]], cwd=home / "remote").returncode)
"""


class Cloud:
    """A folder of stand-ins, and what they were called with.

    Attributes:
      folder: of the stand-ins.
      remote: home folder on the TPU workers.
    """

    def __init__(self, top: pathlib.Path):
        self._top, self.folder = top, top / "bin"
        self.remote = self.folder / "remote"
        self.remote.mkdir(parents=True)
        for name in PROGRAMS:
            (self.folder / name).write_text(STUB.format(python=sys.executable))
            (self.folder / name).chmod(0o755)

    def run(self, script, *arguments, settings=None, launch=LAUNCH, run_here=False, **behaviour):
        """Runs a launch script; ``behaviour`` gives the answers of the stand-ins.

        With ``run_here``, commands for the workers run in ``remote``.
        """
        (self.folder / "behaviour").write_text(json.dumps(behaviour | {"run here": run_here}))
        (self.folder / "calls").write_text("")
        environment = {
            "HOME": str(self._top),
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "POLL_SECONDS": "0",
            "RETRY_SECONDS": "0",
            "PYTHON": sys.executable,
            "JAX_PLATFORMS": "cpu",
        }
        environment |= settings or {}
        for name in PROGRAMS:
            assert shutil.which(name, path=environment["PATH"]) == str(self.folder / name)
        return subprocess.run(
            ["bash", launch / script, *arguments],
            env=environment,
            cwd=self._top,
            capture_output=True,
            text=True,
            timeout=300,
        )

    @property
    def calls(self):
        """Program, arguments and input of each call."""
        return [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]

    def verbs(self):
        """What each call asked of the TPU service."""
        words = ("create", "describe", "delete", "ssh", "scp")
        return [next(word for word in words if word in given) for _, given, _ in self.calls]


def misleading(folder, script):
    """Makes ``folder/link``, a symlink to a script, and returns an environment with a CDPATH.

    The CDPATH makes a careless ``cd`` go elsewhere, and print where.
    """
    for name in ("launch", "sample_run"):
        (folder / "decoy" / name).mkdir(parents=True)
    (folder / "link").symlink_to(script)
    return os.environ | {"CDPATH": str(folder / "decoy")}


def copy_of_launch(folder):
    """Copies launch/ into a folder, with an install.sh that does nothing; returns the copy."""
    shutil.copytree(LAUNCH, folder / "launch")
    (folder / "launch" / "install.sh").write_text("#!/usr/bin/env bash\n")
    return folder / "launch"


def executable(path, text):
    """Writes an executable script; returns its path."""
    path.write_text(text)
    path.chmod(0o755)
    return path


def wait_for(condition, seconds=60):
    """Waits until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(process):
    """Whether a process runs; one that has ended but was not waited for does not."""
    stat = pathlib.Path(f"/proc/{process}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
