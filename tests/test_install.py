"""launch/install.sh repairs a broken environment and refuses one that it cannot use.

The environments are real; pip is a stand-in.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from tests.tiny import TOP

SUPPORTED = "Python 3.11, 3.12 and 3.13 are supported"
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


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def test_it_installs_once_and_again_after_a_change(checkout):
    first = checkout.done("test")
    lock = f"launch/locks/python{'3.11' if OURS == '3.11' else '3.13'}/requirements-test.txt"
    assert first[0].endswith(f"--require-hashes -r {lock}")
    assert first[1].endswith("--editable .")
    assert (
        checkout.done("test") == [] and checkout.done() == []
    )  # The extras hold what the package needs.
    assert [line for line in checkout.done("tpu") if "requirements-tpu" in line]
    assert checkout.done("test") == []
    with (checkout.top / "setup.py").open("a") as setup:
        setup.write("# another requirement\n")
    assert len(checkout.done("test")) == len(first)
    assert checkout.done("tpu") != []  # It was installed from the files as they were.


def claims(minor, checkout):
    """A script that runs the checkout's Python but claims another version."""
    return (
        f"#!/usr/bin/env bash\n[[ $1 == -c ]] && echo {minor} && exit\n"
        f'exec "{checkout.python}" "$@"\n'
    )


def test_the_lock_follows_the_interpreter(checkout):
    for minor, folder in (("3.11", "3.11"), ("3.12", "3.13"), ("3.13", "3.13")):
        shutil.rmtree(checkout.venv, ignore_errors=True)
        python = stand_in(checkout.top.parent / "bin" / minor, claims(minor, checkout))
        found = checkout.done(PYTHON=str(python))
        assert f"launch/locks/python{folder}/requirements.txt" in found[0]


def dangle(checkout):
    (checkout.venv / "bin" / "python").unlink()
    (checkout.venv / "bin" / "python").symlink_to("/nowhere/python3.11")


def lose_pip(checkout):
    for folder in checkout.venv.glob("lib/python*/site-packages/pip"):
        shutil.rmtree(folder)


def break_interpreter(checkout):
    (checkout.venv / "bin" / "python").unlink()
    stand_in(checkout.venv / "bin" / "python", "#!/usr/bin/env bash\nexit 127\n")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (dangle, "its interpreter is missing"),
        (lose_pip, "it has no pip"),
        (break_interpreter, "its interpreter does not run"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_broken_environment_is_made_anew(checkout, broken, said):
    checkout.done()
    (checkout.venv / "left").touch()
    broken(checkout)
    done = checkout.install()
    assert done.returncode == 0 and f"making {checkout.venv} anew: {said}" in done.stderr
    assert not (checkout.venv / "left").exists() and checkout.done() == []


def test_a_copied_checkout_gets_an_environment_of_its_own(checkout, tmp_path):
    checkout.done()
    copy = tmp_path / "copy"
    shutil.copytree(checkout.top, copy, symlinks=True)
    done = checkout.install(script=copy / "launch" / "install.sh")
    assert done.returncode == 0 and "it was made in another folder" in done.stderr
    code = "import vlbeit_jax; print(vlbeit_jax.__file__)"
    found = subprocess.run(
        [copy / ".venv" / "bin" / "python", "-I", "-c", code], capture_output=True, text=True
    )
    assert found.stdout.strip() == str(copy / "vlbeit_jax" / "__init__.py")


def test_another_checkout_in_the_environment_is_replaced(checkout, tmp_path):
    checkout.done()
    (tmp_path / "other" / "vlbeit_jax").mkdir(parents=True)
    (tmp_path / "other" / "vlbeit_jax" / "__init__.py").touch()
    for path in checkout.venv.glob("lib/python*/site-packages/package.pth"):
        path.write_text(str(tmp_path / "other"))
    assert checkout.done()[-1].endswith("--editable .")
    assert checkout.done() == []


@pytest.mark.parametrize(
    "environment",
    [{"STOP_AT": "--editable"}, {"STOP_AT": "--editable", "KILL": "1"}],
    ids=["failed", "killed"],
)
def test_an_installation_that_was_cut_off_is_not_taken_for_whole(checkout, environment):
    assert checkout.install(**environment).returncode != 0
    again = checkout.install()
    assert again.returncode == 0 and "an installation into it was cut off" in again.stderr
    assert checkout.done() == []


def test_a_failure_of_venv_is_told_and_leaves_nothing(checkout):
    failed = checkout.install(NO_VENV="1")
    assert (
        failed.returncode == 2
        and "ensurepip is not available" in failed.stderr
        and f"package python{OURS}-venv" in failed.stderr
    )
    assert not checkout.venv.exists() and checkout.done() != []


@pytest.mark.parametrize("minor", ["3.10", "3.14"])
def test_an_unsupported_python_is_refused_with_the_range(checkout, minor):
    other = stand_in(checkout.top.parent / "bin" / "other", f"#!/usr/bin/env bash\necho {minor}\n")
    done = checkout.install(PYTHON=str(other))
    assert (
        done.returncode == 2
        and f"is Python {minor}; {SUPPORTED}" in done.stderr
        and not checkout.venv.exists()
    )
    gone = checkout.install(PYTHON="/nowhere/python")
    assert gone.returncode == 2 and f"does not run; {SUPPORTED}" in gone.stderr


def test_only_unsupported_pythons_on_the_path_are_named(checkout, tmp_path):
    tools = tmp_path / "tools"
    for name in ("bash", "dirname", "readlink", "ls", "head", "cat", "flock", "mkdir", "rm"):
        tools.mkdir(exist_ok=True)
        (tools / name).symlink_to(shutil.which(name))
    stand_in(tools / "python3", "#!/usr/bin/env bash\necho 3.14\n")
    stand_in(tools / "python3.13", "#!/usr/bin/env bash\nexit 127\n")  # As one of pyenv's shims.
    done = checkout.install(PYTHON="", PATH=str(tools))
    assert (
        done.returncode == 2
        and SUPPORTED in done.stderr
        and "python3 is Python 3.14" in done.stderr
    )
    stand_in(tools / "python3.12", claims("3.12", checkout))
    assert "python3.12-venv" in checkout.install(PYTHON="", PATH=str(tools), NO_VENV="1").stderr


def test_an_environment_of_another_python_is_left_alone(checkout):
    checkout.done()
    version = "3.11" if OURS != "3.11" else "3.13"
    other = stand_in(
        checkout.top.parent / "bin" / "other", f"#!/usr/bin/env bash\necho {version}\n"
    )
    done = checkout.install(PYTHON=str(other))
    assert done.returncode == 2 and f"holds Python {OURS}" in done.stderr and "VENV" in done.stderr
    assert checkout.done() == []
    (checkout.top / "folder").mkdir()
    (checkout.top / "folder" / "file").touch()
    done = checkout.install(VENV="folder")
    assert (
        done.returncode == 2
        and "not a Python environment" in done.stderr
        and (checkout.top / "folder" / "file").exists()
    )


def test_versions_out_of_range_are_refused_with_the_range(checkout):
    checkout.done()
    complaint = "vlbeit-jax 0.1.0 has requirement jax<0.13,>=0.10, but you have jax 0.13.0."
    done = checkout.install(COMPLAINT=complaint)
    assert done.returncode == 2 and complaint in done.stderr
    assert (
        checkout.install(
            COMPLAINT="another 1.0 has requirement numpy<2, but you have numpy 2.4.6."
        ).returncode
        == 0
    )


def test_it_is_found_through_links_and_with_cdpath(checkout, tmp_path):
    decoy = tmp_path / "decoy"
    (decoy / "launch").mkdir(parents=True)
    link = tmp_path / "links" / "install"
    link.parent.mkdir()
    link.symlink_to(checkout.top / "launch" / "install.sh")
    assert checkout.install(script=link, CDPATH=str(decoy)).returncode == 0
    assert checkout.venv.is_dir() and not (decoy / ".venv").exists()
    done = subprocess.run(
        ["bash", "launch/install.sh"],
        cwd=checkout.top,
        env=os.environ | {"PYTHON": str(checkout.python), "CDPATH": str(decoy)},
    )
    assert done.returncode == 0 and not (decoy / ".venv").exists()


def test_the_script_and_setup_support_the_same_pythons():
    bounds = re.search(
        r'^PYTHON = ">=3\.(\d+),<3\.(\d+)"', (TOP / "setup.py").read_text(), re.MULTILINE
    )
    minors = range(int(bounds[1]), int(bounds[2]))
    *others, last = (f"3.{minor}" for minor in minors)
    assert (
        f'"Python {", ".join(others)} and {last} are supported"'
        in (TOP / "launch" / "install.sh").read_text()
    )


def test_a_built_package_holds_every_python_file(tmp_path):
    """Also those of convert/standalone, which is data: users get copies of its files."""
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(TOP / name, tmp_path)
    shutil.copytree(TOP / "configs", tmp_path / "configs")
    ignored = shutil.ignore_patterns("__pycache__", "sample_data")
    shutil.copytree(TOP / "vlbeit_jax", tmp_path / "vlbeit_jax", ignore=ignored)
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", "built"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wanted, found = (
        {path.relative_to(top) for path in (top / "vlbeit_jax").rglob("*.py")}
        for top in (tmp_path, tmp_path / "built")
    )
    configs = {pathlib.Path("vlbeit_jax", *path.parts[-2:]) for path in TOP.glob("configs/*.py")}
    assert configs and wanted | configs == found
