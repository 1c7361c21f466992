"""A checkout whose environments are real, and whose pip is a stand-in."""

import os
import shutil
import subprocess
import sys

from tests.tiny import TOP

OURS = f"{sys.version_info[0]}.{sys.version_info[1]}"
# Logs its arguments and installs the package. STOP_AT names the file at which it fails or is
# killed.
PIP = """
import os, pathlib, signal, sys, sysconfig
site = pathlib.Path(sysconfig.get_paths()["purelib"])
if sys.argv[1] == "check":
    print(os.environ.get("COMPLAINT", "No broken requirements found."))
    sys.exit("COMPLAINT" in os.environ)
with open(pathlib.Path(sys.prefix).parent / "pip.log", "a") as log:
    log.write(" ".join(sys.argv[1:]) + "\\n")
if os.environ.get("STOP_AT", "nothing") in " ".join(sys.argv):
    os.kill(os.getppid(), signal.SIGKILL) if "KILL" in os.environ else sys.exit(1)
if "--editable" in sys.argv:
    (site / "package.pth").write_text(os.getcwd())
"""
# Makes environments with that pip, and is otherwise this Python.
PYTHON = """#!/usr/bin/env bash
if [[ ${1:-} == -m && ${2:-} == venv ]]; then
  [[ -z ${NO_VENV:-} ]] || { mkdir -p "${@: -1}/bin"; echo "ensurepip is not available"; exit 1; }
  REAL -m venv --without-pip "${@:3}"
  for site in "${@: -1}"/lib/python*/site-packages; do
    mkdir "$site/pip"
    cp PIP "$site/pip/__main__.py"
    touch "$site/pip/__init__.py"
  done
  printf '#!%s\\n' "${@: -1}/bin/python" >"${@: -1}/bin/pip"
  exit
fi
exec REAL "$@"
"""


def stand_in(path, text):
    """A command at that place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def claims(minor, checkout):
    """A script that runs the checkout's Python but claims another version."""
    return (
        f"#!/usr/bin/env bash\n[[ $1 == -c ]] && echo {minor} && exit\n"
        f'exec "{checkout.python}" "$@"\n'
    )


class Checkout:
    """A copy of what the script reads, in a folder whose name has a space."""

    def __init__(self, folder):
        self.top = folder / "check out"
        shutil.copytree(TOP / "launch", self.top / "launch")
        (self.top / "vlbeit_jax").mkdir()
        (self.top / "vlbeit_jax" / "__init__.py").touch()
        shutil.copy(TOP / "setup.py", self.top)
        pip = folder / "pip.py"
        pip.write_text(PIP)
        self.python = stand_in(
            folder / "bin" / "python",
            PYTHON.replace("REAL", f"'{sys.executable}'").replace("PIP", f"'{pip}'"),
        )
        self.venv = self.top / ".venv"

    def install(self, *arguments, script=None, **environment):
        kept = {
            name: value
            for name, value in os.environ.items()
            if name not in ("VENV", "PYTHONPATH", "CDPATH")
        }
        return subprocess.run(
            ["bash", script or self.top / "launch" / "install.sh", *arguments],
            env=kept | {"PYTHON": str(self.python)} | environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def done(self, *arguments, **environment):
        """What pip was asked for, in a call that has to succeed."""
        log = self.top / "pip.log"
        log.unlink(missing_ok=True)
        done = self.install(*arguments, **environment)
        assert done.returncode == 0, done.stderr
        return log.read_text().splitlines() if log.exists() else []
