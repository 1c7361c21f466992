"""Launch scripts of clusters, against stand-ins for gcloud, kubectl and sbatch that write down what they were given."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from tests.test_launch import LAUNCH, WORDS
from tests.tiny import TOP

TPU = {"NAME": "run-1", "PROJECT": "p", "ZONE": "z", "ACCELERATOR": "v5litepod-256", "RUNTIME": "v2", "SPOT": "true"}
GKE = {
    "NAME": "run-1",
    "IMAGE": "r/i@sha256:0",
    "ACCELERATOR": "tpu-v5-lite-podslice",
    "TOPOLOGY": "16x16",
    "HOSTS": "64",
    "CHIPS": "4",
    "CLAIM": "c",
}

# The stand-in: notes its arguments and input, then does what the file BEHAVIOUR of its folder says for such a call.
STUB = """#!{python}
import json, os, pathlib, subprocess, sys
home = pathlib.Path(__file__).parent
given = sys.argv[1:]
text = sys.stdin.read() if "--filename=-" in given else ""
with (home / "calls").open("a") as calls:
    calls.write(json.dumps([pathlib.Path(__file__).name, given, text]) + "\\n")
behaviour = json.loads((home / "behaviour").read_text())
command = next((word.removeprefix("--command=") for word in given if word.startswith("--command=")), None)
for key, answers in behaviour.items():
    if key in " ".join(given) and answers:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        (home / "behaviour").write_text(json.dumps(behaviour))
        if isinstance(answer, int):
            sys.exit(answer)
        print(answer)
        sys.exit(0)
if command and behaviour.get("run here"):
    sys.exit(subprocess.run(["bash", "-c", command], cwd=home / "remote").returncode)
"""


@pytest.fixture
def cloud(tmp_path):
    """A folder that is first on PATH, and what was called there."""

    class Cloud:
        folder = tmp_path / "bin"

        def run(self, script, *arguments, settings=None, **behaviour):
            (self.folder / "behaviour").write_text(json.dumps(behaviour))
            (self.folder / "calls").write_text("")
            environment = {"HOME": str(tmp_path), "PATH": f"{self.folder}:{os.environ['PATH']}", "POLL_SECONDS": "0", "RETRY_SECONDS": "0"}
            environment |= settings or {}
            for name in ("gcloud", "kubectl", "sbatch"):
                assert shutil.which(name, path=environment["PATH"]) == str(self.folder / name)
            return subprocess.run(
                ["bash", LAUNCH / script, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=30
            )

        @property
        def calls(self):
            return [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]

        def verbs(self):
            """What was asked of the TPU service, in short."""
            words = ("create", "describe", "delete", "ssh", "scp")
            return [next(word for word in words if word in given) for _, given, _ in self.calls]

    found = Cloud()
    found.folder.mkdir()
    (found.folder / "remote").mkdir()
    for name in ("gcloud", "kubectl", "sbatch"):
        (found.folder / name).write_text(STUB.format(python=sys.executable))
        (found.folder / name).chmod(0o755)
    return found


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
        ("gke.sh", ["start"], GKE | {"IMAGE": "r/i:latest"}, "by digest"),
        ("gke.sh", ["start"], GKE | {"HOSTS": "many"}, "HOSTS=many"),
        ("gke.sh", ["start"], GKE | {"TOPOLOGY": "x: y"}, "'x: y'"),
        ("gke.sh", ["start"], GKE | {"NAME": "Run_1"}, "NAME=Run_1"),
        ("gke.sh", ["delete"], GKE, "launch/gke.sh delete run-1"),
        ("slurm.sh", ["--config=x"], {"NODES": "2"}, "set GPUS"),
        ("slurm.sh", [], {"NODES": "2", "GPUS": "8"}, "give the arguments"),
        ("gpu.sh", [], {}, "give the arguments"),
        ("worker.sh", ["start"], {}, "usage"),
        ("worker.sh", ["start", "../x"], {}, "usage"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_usage_errors_and_touch_nothing(cloud, script, arguments, settings, said):
    done = cloud.run(script, *arguments, settings=settings)
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert not cloud.calls


@pytest.mark.parametrize("script", ["tpu_vm.sh", "gke.sh", "slurm.sh", "gpu.sh"])
def test_a_dry_run_shows_every_command_and_runs_none(cloud, script):
    settings = {"tpu_vm.sh": TPU, "gke.sh": GKE, "slurm.sh": {"NODES": "2", "GPUS": "8"}, "gpu.sh": {}}[script]
    verb = {"tpu_vm.sh": ["run"], "gke.sh": ["start"]}.get(script, [])
    done = cloud.run(script, "--dry-run", *verb, *WORDS, settings=settings)
    assert done.returncode == 0, done.stderr
    assert not cloud.calls and not (cloud.folder.parent / "hacked").exists()
    shown = [line for line in done.stderr.splitlines() if line.startswith("$ ")]
    wanted = {
        "tpu_vm.sh": ["queued-resources create", "git -C", "scp", "install.sh", "worker.sh"], "gke.sh": ["apply"],
        "slurm.sh": ["sbatch"], "gpu.sh": ["install.sh", "vlbeit_jax.main"],
    }[script]  # fmt: skip
    for words in wanted:
        assert any(words in line for line in shown), (words, shown)


def test_chips_are_asked_for_and_waited_for(cloud):
    states = {"describe": ["NONE", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]}
    done = cloud.run("tpu_vm.sh", "create", settings=TPU, **states)
    assert done.returncode == 0, done.stderr
    assert cloud.verbs() == ["describe", "create", "describe", "describe", "describe"]
    created = cloud.calls[1][1]
    assert "--spot" in created and "--accelerator-type=v5litepod-256" in created and "--project=p" in created and "--zone=z" in created
    done = cloud.run("tpu_vm.sh", "create", settings=TPU | {"SPOT": "false"}, **states)
    assert done.returncode == 0 and "--spot" not in cloud.calls[1][1]
    done = cloud.run("tpu_vm.sh", "create", settings=TPU, describe=["ACTIVE"])  # A second call asks for nothing more.
    assert done.returncode == 0 and cloud.verbs() == ["describe"]
    done = cloud.run("tpu_vm.sh", "create", settings=TPU | {"WAIT_MINUTES": "0"}, describe=["PROVISIONING"])
    assert done.returncode == 2 and "run-1 is PROVISIONING after 0 minutes" in done.stderr


def test_arguments_arrive_as_they_are(cloud):
    """Over ssh, through two shells, to a real worker.sh whose interpreter writes down what it got."""
    remote = cloud.folder / "remote"
    shutil.copytree(LAUNCH, remote / "vlbeit_jax" / "launch")
    note = remote / "note.py"
    note.write_text(f"#!{sys.executable}\nimport json, sys; json.dump(sys.argv[1:], open({str(remote / 'got')!r}, 'w'))\n")
    note.chmod(0o755)
    done = cloud.run("tpu_vm.sh", "start", *WORDS, settings=TPU | {"PYTHON": str(note)}, **{"run here": True})
    assert done.returncode == 0, done.stderr
    deadline = time.monotonic() + 10
    ended = cloud.folder.parent / "vlbeit_jax_runs" / "run-1" / "exit_code"
    while not ended.is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert json.loads((remote / "got").read_text()) == ["-m", "vlbeit_jax.main", *WORDS]
    assert not list(cloud.folder.parent.rglob("hacked")) and "--worker=all" in cloud.calls[0][1]


@pytest.mark.parametrize("lost", [2, 99])
def test_a_lost_connection_is_tried_again_a_few_times(cloud, lost):
    done = cloud.run("tpu_vm.sh", "stop", settings=TPU | {"RETRIES": "3"}, ssh=[255] * lost + ["stopped"])
    assert (done.returncode, len(cloud.calls)) == ((0, 3) if lost == 2 else (255, 4))
    done = cloud.run("tpu_vm.sh", "stop", settings=TPU, ssh=[7])
    assert (done.returncode, len(cloud.calls)) == (7, 1)  # The command itself failed: trying again would not mend it.


def test_chips_that_are_taken_away_are_asked_for_again(cloud):
    """Create, install, start; taken away; all again on the same arguments; the end of the run ends it."""
    describe = ["NONE", "ACTIVE", "ACTIVE", "SUSPENDED", "SUSPENDED", "WAITING_FOR_RESOURCES", "ACTIVE"]
    done = cloud.run("tpu_vm.sh", "run", *WORDS, settings=TPU, describe=describe, **{"worker.sh status": ["running 7", "ended 0"]})
    assert done.returncode == 0, done.stderr
    asked = cloud.verbs()
    assert asked.count("create") == 2 and asked.count("delete") == 1 and asked.index("delete") > asked.index("ssh")
    started = [given for _, given, _ in cloud.calls if any("worker.sh start" in word for word in given)]
    assert len(started) == 2 and started[0] == started[1]
    assert "restart 1 of 10" in done.stderr and "finished" in done.stdout


@pytest.mark.parametrize(("ending", "code", "starts"), [("ended 2", 2, 1), ("ended 1", 2, 3), ("lost", 2, 3)])
def test_restarts_are_bounded_and_a_mistake_is_not_repeated(cloud, ending, code, starts):
    settings = TPU | {"MAX_RESTARTS": "2"}
    done = cloud.run("tpu_vm.sh", "run", "--config=x", settings=settings, describe=["ACTIVE"], **{"worker.sh status": [ending]})
    assert done.returncode == code, done.stderr
    assert sum("worker.sh start" in " ".join(given) for _, given, _ in cloud.calls) == starts
    assert "delete" not in cloud.verbs()


def test_nothing_is_deleted_without_its_name(cloud):
    done = cloud.run("tpu_vm.sh", "delete", "run-1", settings=TPU)
    assert done.returncode == 0 and cloud.verbs() == ["delete"] and "run-1" in cloud.calls[0][1]
    done = cloud.run("gke.sh", "delete", "run-1", settings=GKE)
    assert done.returncode == 0 and cloud.calls[0][1] == ["--namespace=default", "delete", "jobset", "run-1"]


def test_the_jobset_holds_the_arguments_as_they_are(cloud):
    yaml = pytest.importorskip("yaml")
    done = cloud.run("gke.sh", "start", *WORDS, settings=GKE)
    assert done.returncode == 0, done.stderr
    (name, given, text) = cloud.calls[0]
    assert name == "kubectl" and given == ["--namespace=default", "apply", "--filename=-"]
    jobset = yaml.safe_load(text)
    job = jobset["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    assert pod["containers"][0]["args"] == WORDS and pod["containers"][0]["image"] == GKE["IMAGE"]
    assert job["parallelism"] == job["completions"] == 64 and pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": 4}
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] == 10


def test_the_slurm_job_is_this_script_with_the_arguments_as_they_are(cloud, tmp_path):
    if not (TOP / ".venv" / "bin" / "python").exists():
        pytest.skip("no .venv beside setup.py")
    done = cloud.run("slurm.sh", *WORDS, settings={"NODES": "2", "GPUS": "8", "SBATCH_OPTIONS": "--partition=gpu --account=a"})
    assert done.returncode == 0, done.stderr
    given = cloud.calls[0][1]
    assert given[-len(WORDS) :] == WORDS and given[-len(WORDS) - 1] == str(LAUNCH / "slurm.sh")
    assert {"--nodes=2", "--ntasks-per-node=8", "--requeue", "--signal=TERM@300", "--partition=gpu", "--account=a"} <= set(given)
