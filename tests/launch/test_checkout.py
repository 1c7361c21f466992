"""launch/checkout.sh: TPU workers get the checkout as it is."""

import shutil
import subprocess

import pytest

from tests.launch.stand_ins import LAUNCH, TPU, copy_of_launch
from tests.tiny import TOP

SENT = ("vlbeit_jax/data/a.py", "a file", "-dash")
NOT_SENT = (
    ".venv/bin/python",
    "runs/x",
    "data/y",
    "sample_run/z",
    "a/__pycache__/b",
    "c.egg-info/d",
)


@pytest.fixture
def checkout_to_send(tmp_path):
    """A copy of launch/ among other files, in a folder with a difficult name; what must be sent."""
    top = tmp_path / "it's a checkout"
    copy_of_launch(top)
    shutil.copy(TOP / ".gitignore", top)
    for name in (*SENT, *NOT_SENT):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(name)
    (top / "link").symlink_to("a file")
    launch = {f"launch/{name}" for name in files(LAUNCH)}
    return top, {*SENT, "link", ".gitignore"} | launch


def files(folder):
    """Relative paths of all files and symlinks."""
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def commit_a_part(top):
    """Makes the folder a git checkout in which some files are committed."""
    settings = ("user.name=a", "user.email=a@b", "core.hooksPath=/dev/null")
    git = ["git", "-C", top, *(word for each in settings for word in ("-c", each))]
    subprocess.run([*git, "init", "--quiet"], check=True)
    subprocess.run([*git, "add", "a file", "vlbeit_jax"], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "a"], check=True)


@pytest.mark.parametrize("kind", ["git", "ZIP"])
def test_workers_get_the_checkout_as_it_is(cloud, checkout_to_send, kind):
    top, sent = checkout_to_send
    if kind == "git":
        commit_a_part(top)

    def install():
        done = cloud.run("tpu_vm.sh", "install", settings=TPU, launch=top / "launch", run_here=True)
        assert done.returncode == 0, done.stderr

    install()
    remote = cloud.remote / "vlbeit_jax"
    assert files(remote) == sent and (remote / "link").is_symlink()
    assert (remote / "a file").read_text() == "a file"
    # A second time, after files have changed, and come and gone. What the worker made itself stays.
    (top / "a file").write_text("changed")
    (top / "new").write_text("new")
    (top / "vlbeit_jax" / "data" / "a.py").unlink()
    (remote / ".venv").mkdir()
    (remote / ".venv" / "kept").write_text("kept")
    install()
    assert files(remote) == sent - {"vlbeit_jax/data/a.py"} | {"new", ".venv/kept"}
    assert (remote / "a file").read_text() == "changed"


def test_a_checkout_whose_exclusions_need_git_is_not_sent_without_it(cloud, checkout_to_send):
    top, _ = checkout_to_send
    (top / ".gitignore").write_text(".venv/\n!keep\n")
    done = cloud.run("tpu_vm.sh", "install", settings=TPU, launch=top / "launch")
    assert done.returncode == 2 and "'!keep' is not understood without git" in done.stderr
    assert not cloud.calls
