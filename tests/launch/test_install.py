"""launch/install.sh installs once, and repairs a broken environment."""

import os
import shutil
import subprocess

import pytest

from tests.launch.checkouts import OURS, claims, stand_in


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
