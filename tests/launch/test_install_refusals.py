"""launch/install.sh refuses a Python, an environment and versions that it cannot use."""

import re
import shutil

import pytest

from tests.launch.checkouts import OURS, claims, stand_in
from tests.tiny import TOP

SUPPORTED = "Python 3.11, 3.12 and 3.13 are supported"


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
