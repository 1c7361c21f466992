"""A built wheel works from any folder: commands, configurations, the packaged model."""

import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig

import numpy as np
import pytest

from tests import tiny
from tests.tiny import TOP, metrics_of, one_device
from vlbeit_jax.config import files
from vlbeit_jax.config.files import known, resolved
from vlbeit_jax.errors import UsageError
from vlbeit_jax.scripts import COMMANDS

DISC = (np.random.default_rng(0), "disc", tiny.COLOURS["red"])
NEEDED = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")
ENCODE = """
import sys, vlbeit_jax
out = vlbeit_jax.load("sample").encode(images=[sys.argv[1]])
print(vlbeit_jax.__file__, out.image.shape)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder of commands of an environment that holds the wheel and nothing else of ours."""
    folder = tmp_path_factory.mktemp("wheel")
    source, venv = folder / "source", folder / "venv"
    source.mkdir()
    for name in NEEDED:
        shutil.copy(TOP / name, source)
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("configs", "vlbeit_jax"):
        shutil.copytree(TOP / name, source / name, ignore=ignored)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-index", "--no-deps"]
    _done([*pip, "wheel", *offline, "--no-build-isolation", "-w", folder, source])
    (wheel,) = folder.glob("*.whl")
    _done([sys.executable, "-m", "venv", "--without-pip", venv])
    _done([*pip, f"--python={venv / 'bin' / 'python'}", "install", *offline, wheel])
    # The libraries are those of this interpreter. A path in a .pth file makes packages importable
    # and does not run the .pth files there, one of which names this checkout.
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return venv / "bin"


def _done(command, **options):
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=900, **options
    )
    assert done.returncode == 0, done.stderr
    return done


def _outside(command, folder):
    """Runs a command in a folder that is no clone, without this checkout on the path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["XLA_FLAGS"] = one_device(environment.get("XLA_FLAGS", ""))
    return subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )


@pytest.mark.slow
def test_the_wheel_encodes_a_picture_from_another_folder(installed, tmp_path):
    (tmp_path / "red.png").write_bytes(tiny.png(tiny.drawing(*DISC)))
    done = _outside([installed / "python", "-c", ENCODE, "red.png"], tmp_path)
    assert done.returncode == 0, done.stderr
    place, shape = done.stdout.split(maxsplit=1)
    assert pathlib.Path(place).is_relative_to(installed.parent) and shape.strip() == "(1, 128)"


@pytest.mark.slow
def test_the_wheel_trains_ten_steps_from_another_folder(installed, tmp_path):
    (site,) = installed.parent.glob("lib/python*/site-packages")
    model = site / "vlbeit_jax" / "sample_model"
    command = [
        installed / "vlbeit-train",
        "--config=own:nano",
        "--workdir=run",
        "--config.task.schedule=pair",
        "--config.task.pair.sources=sample:pairs",
        "--config.task.pair.batch_size=4",
        f"--config.task.text_tokenizer={model / 'text_tokenizer'}",
        f"--config.task.visual_tokenizer={model / 'visual_tokenizer'}",
        "--config.run.steps=10",
        "--config.run.evaluate_every=0",
    ]
    done = _outside(command, tmp_path)
    assert done.returncode == 0, done.stderr
    assert metrics_of(tmp_path / "run")[-1]["step"] == 10
    wrong = _outside([*command[:1], "--config=own:tinny", *command[2:]], tmp_path)
    assert wrong.returncode == 2 and "did you mean own:tiny?" in wrong.stderr, wrong.stderr
    assert "Traceback" not in wrong.stderr


@pytest.mark.slow
def test_the_wheel_has_every_command(installed, tmp_path):
    assert {path.name for path in installed.glob("vlbeit-*")} == set(COMMANDS)
    done = _outside([installed / "vlbeit-prepare", "--help"], tmp_path)
    assert done.returncode == 0 and "--validation_share" in done.stdout, done.stderr


def test_every_command_is_a_module_and_every_module_is_a_command():
    for module in COMMANDS.values():
        assert importlib.util.find_spec(module) is not None, module
    runnable = {
        f"vlbeit_jax.{path.relative_to(TOP / 'vlbeit_jax').parts[0].removesuffix('.py')}"
        for path in (TOP / "vlbeit_jax").rglob("*.py")
        if re.search(r"^    cli\.run\(", path.read_text(), re.MULTILINE)
    }
    assert runnable == set(COMMANDS.values())


@pytest.mark.parametrize("given", ["own:tiny", "own.py:tiny", "own", "configs/own.py:tiny"])
def test_a_short_name_is_a_packaged_file(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # No clone, so configs/own.py is not there.
    _, colon, variant = given.partition(":")
    assert resolved(given) == f"{TOP / 'configs' / 'own.py'}{colon}{variant}"


def test_a_file_of_the_user_comes_first(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "own.py").write_text("def get_config(x): ...\n")
    monkeypatch.chdir(tmp_path)
    assert resolved("configs/own.py:tiny") == "configs/own.py:tiny"


@pytest.mark.parametrize(
    "given, said",
    [
        ("onw:tiny", "did you mean own?"),
        ("configs/pretrain_bse.py", "did you mean pretrain_base?"),
        ("elsewhere/own.py", "elsewhere/own.py is no file"),
        ("zzz", "The package has"),
        ("sample:tiny", "sample has no variants; leave out :tiny"),
    ],
)
def test_a_configuration_that_does_not_exist_is_answered_with_the_nearest(given, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        resolved(given)


def test_the_package_knows_the_files_of_the_clone():
    assert set(known()) == {path.stem for path in TOP.glob("configs/*.py")}


def test_a_built_package_knows_its_own_files_alone(tmp_path, monkeypatch):
    """The control is a clone, where the folder beside the package is ours."""
    package, beside = tmp_path / "vlbeit_jax", tmp_path / "configs"
    monkeypatch.setattr(files, "PACKAGE", package)
    monkeypatch.setattr(files, "PACKAGED", package / "configs")
    beside.mkdir()
    (beside / "another.py").touch()
    assert set(known()) == {"another"}
    (package / "configs").mkdir(parents=True)
    (package / "configs" / "own.py").touch()
    assert known() == {"own": package / "configs" / "own.py"}


@pytest.mark.parametrize(
    "given, said",
    [("own:tinny", "did you mean own:tiny?"), ("onw:tiny", "did you mean own?")],
)
def test_the_command_says_it_in_one_message(given, said, tmp_path):
    command = [sys.executable, "-m", "vlbeit_jax.main", f"--config={given}", "--workdir=run"]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1 and done.stderr.count(given) <= 2
    assert done.stderr.startswith("error: --config=") and "UsageError" not in done.stderr


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
