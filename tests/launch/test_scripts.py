"""All launch scripts: well-formed, usage errors, dry runs, and where they find their checkout."""

import os
import subprocess
import sys

import pytest

from tests.launch.stand_ins import GKE, LAUNCH, TPU, WORDS, misleading
from tests.tiny import TOP

SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *(TOP / "tests").glob("*.sh"), TOP / ".ci" / "run"])
STARTED_BY_USERS = [
    LAUNCH / name
    for name in (
        "gke.sh",
        "gpu.sh",
        "sample.sh",
        "sample_ablation.sh",
        "sample_transfer.sh",
        "slurm.sh",
        "tpu_vm.sh",
        "worker.sh",
    )
]
SLURM = {"NODES": "2", "GPUS": "8"}
START, CONFIG = ["start"], ["--config=x"]
NO_PYTHON = {"PYTHON": "no-such-python"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_strict_and_parse(script):
    text = script.read_text()
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text or script.name == "run"
    assert subprocess.run(["bash", "-n", script]).returncode == 0


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_and_shfmt_find_nothing(script):
    tools = f"{TOP / '.venv' / 'bin'}:{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    shellcheck = ["shellcheck", "--external-sources", script]
    for command in (shellcheck, ["shfmt", "-i", "2", "-ci", "-d", script]):
        environment = os.environ | {"PATH": tools}
        done = subprocess.run(command, cwd=TOP, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", ["sample.sh", "sample_ablation.sh", "sample_transfer.sh"])
@pytest.mark.parametrize("arguments", [["--help"], ["one", "two"]])
def test_the_sample_explains_its_use(script, arguments):
    command = ["bash", LAUNCH / script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and f"usage: launch/{script} [WORKDIR]" in done.stderr


def test_an_unknown_set_of_requirements_is_refused():
    done = subprocess.run(["bash", LAUNCH / "install.sh", "tests"], capture_output=True, text=True)
    assert done.returncode == 2 and "tests" in done.stderr


def test_beam_is_installed_into_an_environment_of_its_own(checkout):
    refused = checkout.install("beam")
    assert refused.returncode == 2 and "VENV=.venv-beam launch/install.sh beam" in refused.stderr
    assert not checkout.venv.exists()
    own = checkout.top / ".venv-beam"
    assert "requirements-beam.txt" in checkout.done("beam", VENV=str(own))[0]
    assert own.exists() and not checkout.venv.exists()


@pytest.mark.parametrize("script", STARTED_BY_USERS, ids=lambda path: path.name)
@pytest.mark.parametrize("called", ["by a relative path", "through a symlink", "through two"])
def test_scripts_find_their_checkout(tmp_path, script, called):
    """Far enough to refuse a mistake; test_sample.py and test_worker.py show what follows."""
    environment = misleading(tmp_path, script)
    (tmp_path / "other").symlink_to("link")
    (tmp_path / "elsewhere").mkdir()
    folder, command = {
        "by a relative path": (TOP, f"launch/{script.name}"),
        "through a symlink": (tmp_path / "elsewhere", "../link"),
        "through two": (tmp_path / "elsewhere", "../other"),
    }[called]
    done = subprocess.run(
        ["bash", command, "--dry-run", "--x"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    said = {
        "gpu.sh": f"$ {LAUNCH}/install.sh cuda",
        "sample.sh": "usage: launch/sample.sh",
        "sample_ablation.sh": "usage: launch/sample_ablation.sh",
        "sample_transfer.sh": "usage: launch/sample_transfer.sh",
        "slurm.sh": "set NODES GPUS",
        "worker.sh": "usage: launch/worker.sh",
    }.get(script.name, "unknown verb '--x'")
    assert done.returncode == (0 if script.name == "gpu.sh" else 2), done.stderr
    assert said in done.stderr and not done.stdout, done.stderr


@pytest.mark.parametrize(
    ("script", "arguments", "settings", "said"),
    [
        ("tpu_vm.sh", [], TPU, "unknown verb ''"),
        ("tpu_vm.sh", ["strat"], TPU, "unknown verb 'strat'"),
        ("tpu_vm.sh", ["status"], {"NAME": "x"}, "set PROJECT ZONE"),
        ("tpu_vm.sh", ["create"], TPU | {"RUNTIME": ""}, "set RUNTIME"),
        ("tpu_vm.sh", ["create"], TPU | {"SPOT": "yes"}, "SPOT=yes"),
        ("tpu_vm.sh", ["delete"], TPU, "launch/tpu_vm.sh delete run-1"),
        ("tpu_vm.sh", ["delete", "run-2"], TPU, "launch/tpu_vm.sh delete run-1"),
        ("gke.sh", START, GKE | {"IMAGE": "r/i:latest"}, "by digest"),
        ("gke.sh", START, GKE | {"HOSTS": "many"}, "HOSTS=many"),
        ("gke.sh", START, GKE | {"CHIPS": "0"}, "CHIPS=0: give a whole number of at least 1"),
        ("gke.sh", START + CONFIG, GKE | {"SHARED_MEMORY": "much"}, "SHARED_MEMORY=much"),
        ("gke.sh", START, GKE, "give the arguments"),
        ("gke.sh", START + CONFIG, GKE | NO_PYTHON, "no-such-python is missing; run launch/inst"),
        (
            "gke.sh",
            [*START, "--config=no.py", "--workdir=/d"],
            GKE | {"SHARED_MEMORY": ""},
            "no.py",
        ),
        ("gke.sh", START, GKE | {"TOPOLOGY": "x: y"}, "'x: y'"),
        ("gke.sh", START, GKE | {"NAME": "Run_1"}, "NAME=Run_1"),
        ("gke.sh", ["delete"], GKE, "launch/gke.sh delete run-1"),
        ("slurm.sh", CONFIG, {"NODES": "2"}, "set GPUS"),
        ("slurm.sh", [], SLURM, "give the arguments"),
        ("slurm.sh", CONFIG, SLURM | {"NODES": "0"}, "NODES=0: give a whole number of at least 1"),
        ("slurm.sh", CONFIG, SLURM | {"GPUS": "all"}, "GPUS=all"),
        ("slurm.sh", CONFIG, SLURM | {"HOURS": "1:30"}, "HOURS=1:30"),
        ("slurm.sh", CONFIG, SLURM | NO_PYTHON, "no-such-python is missing"),
        ("gpu.sh", [], {}, "give the arguments"),
        ("worker.sh", START, {}, "usage"),
        ("worker.sh", [*START, "../x"], {}, "usage"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_usage_errors_and_touch_nothing(cloud, script, arguments, settings, said):
    done = cloud.run(script, *arguments, settings=settings)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert not cloud.calls


CREATED = ["queued-resources create", "pack_checkout", "scp", "install.sh", "worker.sh"]


@pytest.mark.parametrize(
    ("script", "verb", "settings", "shown"),
    [
        ("tpu_vm.sh", ["run"], TPU, CREATED),
        ("gke.sh", START, GKE, ["apply"]),
        ("slurm.sh", [], SLURM, ["sbatch"]),
        ("gpu.sh", [], {}, ["install.sh", "vlbeit_jax.main"]),
    ],
)
def test_a_dry_run_shows_every_command_and_runs_none(cloud, script, verb, settings, shown):
    done = cloud.run(script, "--dry-run", *verb, *WORDS, settings=settings)
    assert done.returncode == 0, done.stderr
    assert not cloud.calls and not (cloud.folder.parent / "hacked").exists()
    lines = [line for line in done.stderr.splitlines() if line.startswith("$ ")]
    for words in shown:
        assert any(words in line for line in lines), (words, lines)
