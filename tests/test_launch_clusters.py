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
from vlbeit_jax.config_parse import parse
from vlbeit_jax.plan.shared_memory import shared_memory

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

NOT_FOUND = {
    "said": "ERROR: (gcloud.compute.tpus.queued-resources.describe) NOT_FOUND: Resource was not found"
}

# The stand-in: notes its arguments and input, then does what the file BEHAVIOUR of its folder says for such a call.
STUB = """#!{python}
import json, os, pathlib, shutil, subprocess, sys
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
        if isinstance(answer, int) and answer:
            sys.exit(answer)
        if isinstance(answer, dict):
            print(answer["said"], file=sys.stderr)
            sys.exit(1)
        print(answer)
        sys.exit(0)
if "scp" in given and behaviour.get("run here"):
    source, target = given[given.index("scp") + 1 : given.index("scp") + 3]
    shutil.copy(source, home / "remote" / target.partition(":")[2])
if command and behaviour.get("run here"):
    sys.exit(subprocess.run(["bash", "-c", command], cwd=home / "remote").returncode)
"""


@pytest.fixture
def cloud(tmp_path):
    """A folder that is first on PATH, and what was called there."""

    class Cloud:
        folder = tmp_path / "bin"

        def run(self, script, *arguments, settings=None, launch=LAUNCH, **behaviour):
            (self.folder / "behaviour").write_text(json.dumps(behaviour))
            (self.folder / "calls").write_text("")
            environment = {
                "HOME": str(tmp_path),
                "PATH": f"{self.folder}:{os.environ['PATH']}",
                "POLL_SECONDS": "0",
                "RETRY_SECONDS": "0",
            }
            environment |= {"PYTHON": sys.executable, "JAX_PLATFORMS": "cpu"} | (settings or {})
            for name in ("gcloud", "kubectl", "sbatch"):
                assert shutil.which(name, path=environment["PATH"]) == str(self.folder / name)
            return subprocess.run(
                ["bash", launch / script, *arguments],
                env=environment,
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=300,
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
        ("gke.sh", ["start"], GKE | {"CHIPS": "0"}, "CHIPS=0: give a whole number of at least 1"),
        ("gke.sh", ["start", "--config=x"], GKE | {"SHARED_MEMORY": "much"}, "SHARED_MEMORY=much"),
        ("gke.sh", ["start"], GKE, "give the arguments"),
        (
            "gke.sh",
            ["start", "--config=x"],
            GKE | {"PYTHON": "no-such-python"},
            "no-such-python is missing; run launch/install.sh first",
        ),
        (
            "gke.sh",
            ["start", "--config=no/such.py", "--workdir=/data"],
            GKE | {"SHARED_MEMORY": ""},
            "no/such.py",
        ),
        ("gke.sh", ["start"], GKE | {"TOPOLOGY": "x: y"}, "'x: y'"),
        ("gke.sh", ["start"], GKE | {"NAME": "Run_1"}, "NAME=Run_1"),
        ("gke.sh", ["delete"], GKE, "launch/gke.sh delete run-1"),
        ("slurm.sh", ["--config=x"], {"NODES": "2"}, "set GPUS"),
        ("slurm.sh", [], {"NODES": "2", "GPUS": "8"}, "give the arguments"),
        (
            "slurm.sh",
            ["--config=x"],
            {"NODES": "0", "GPUS": "8"},
            "NODES=0: give a whole number of at least 1",
        ),
        ("slurm.sh", ["--config=x"], {"NODES": "2", "GPUS": "all"}, "GPUS=all"),
        ("slurm.sh", ["--config=x"], {"NODES": "2", "GPUS": "8", "HOURS": "1:30"}, "HOURS=1:30"),
        (
            "slurm.sh",
            ["--config=x"],
            {"NODES": "2", "GPUS": "8", "PYTHON": "no-such-python"},
            "no-such-python is missing",
        ),
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
    settings = {
        "tpu_vm.sh": TPU,
        "gke.sh": GKE,
        "slurm.sh": {"NODES": "2", "GPUS": "8"},
        "gpu.sh": {},
    }[script]
    verb = {"tpu_vm.sh": ["run"], "gke.sh": ["start"]}.get(script, [])
    done = cloud.run(script, "--dry-run", *verb, *WORDS, settings=settings)
    assert done.returncode == 0, done.stderr
    assert not cloud.calls and not (cloud.folder.parent / "hacked").exists()
    shown = [line for line in done.stderr.splitlines() if line.startswith("$ ")]
    wanted = {
        "tpu_vm.sh": ["queued-resources create", "pack_checkout", "scp", "install.sh", "worker.sh"],
        "gke.sh": ["apply"],
        "slurm.sh": ["sbatch"],
        "gpu.sh": ["install.sh", "vlbeit_jax.main"],
    }[script]
    for words in wanted:
        assert any(words in line for line in shown), (words, shown)


def test_chips_are_asked_for_and_waited_for(cloud):
    states = {"describe": [NOT_FOUND, "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]}
    done = cloud.run("tpu_vm.sh", "create", settings=TPU, **states)
    assert done.returncode == 0, done.stderr
    assert cloud.verbs() == ["describe", "create", "describe", "describe", "describe"]
    created = cloud.calls[1][1]
    assert (
        "--spot" in created
        and "--accelerator-type=v5litepod-256" in created
        and "--project=p" in created
        and "--zone=z" in created
    )
    done = cloud.run("tpu_vm.sh", "create", settings=TPU | {"SPOT": "false"}, **states)
    assert done.returncode == 0 and "--spot" not in cloud.calls[1][1]
    done = cloud.run(
        "tpu_vm.sh", "create", settings=TPU, describe=["ACTIVE"]
    )  # A second call asks for nothing more.
    assert done.returncode == 0 and cloud.verbs() == ["describe"]
    done = cloud.run(
        "tpu_vm.sh", "create", settings=TPU | {"WAIT_MINUTES": "0"}, describe=["PROVISIONING"]
    )
    assert done.returncode == 2 and "run-1 is PROVISIONING after 0 minutes" in done.stderr


def test_arguments_arrive_as_they_are(cloud):
    """Over ssh, through two shells, to a real worker.sh whose interpreter writes down what it got."""
    remote = cloud.folder / "remote"
    shutil.copytree(LAUNCH, remote / "vlbeit_jax" / "launch")
    note = remote / "note.py"
    note.write_text(
        f"#!{sys.executable}\nimport json, sys; json.dump(sys.argv[1:], open({str(remote / 'got')!r}, 'w'))\n"
    )
    note.chmod(0o755)
    done = cloud.run(
        "tpu_vm.sh", "start", *WORDS, settings=TPU | {"PYTHON": str(note)}, **{"run here": True}
    )
    assert done.returncode == 0, done.stderr
    deadline = time.monotonic() + 10
    ended = cloud.folder.parent / "vlbeit_jax_runs" / "run-1" / "exit_code"
    while not ended.is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert json.loads((remote / "got").read_text()) == ["-m", "vlbeit_jax.main", *WORDS]
    assert not list(cloud.folder.parent.rglob("hacked")) and "--worker=all" in cloud.calls[0][1]


@pytest.mark.parametrize("lost", [2, 99])
def test_a_lost_connection_is_tried_again_a_few_times(cloud, lost):
    done = cloud.run(
        "tpu_vm.sh", "stop", settings=TPU | {"RETRIES": "3"}, ssh=[255] * lost + ["stopped"]
    )
    assert (done.returncode, len(cloud.calls)) == ((0, 3) if lost == 2 else (255, 4))
    done = cloud.run("tpu_vm.sh", "stop", settings=TPU, ssh=[7])
    assert (done.returncode, len(cloud.calls)) == (
        7,
        1,
    )  # The command itself failed: trying again would not mend it.


def test_chips_that_are_taken_away_are_asked_for_again(cloud):
    """Create, install, start; taken away; all again on the same arguments; the end of the run ends it."""
    describe = [
        NOT_FOUND,
        "ACTIVE",
        "ACTIVE",
        "SUSPENDED",
        "SUSPENDED",
        "DELETING",
        NOT_FOUND,
        "WAITING_FOR_RESOURCES",
        "ACTIVE",
    ]
    done = cloud.run(
        "tpu_vm.sh",
        "run",
        *WORDS,
        settings=TPU,
        describe=describe,
        **{"worker.sh status": ["running 7", "ended 0"]},
    )
    assert done.returncode == 0, done.stderr
    asked = cloud.verbs()
    assert (
        asked.count("create") == 2
        and asked.count("delete") == 1
        and asked.index("delete") > asked.index("ssh")
    )
    started = [
        given for _, given, _ in cloud.calls if any("worker.sh start" in word for word in given)
    ]
    assert len(started) == 2 and started[0] == started[1]
    assert "restart 1 of 10" in done.stderr and "finished" in done.stdout


@pytest.mark.parametrize(
    ("ending", "code", "starts"), [("ended 2", 2, 1), ("ended 1", 2, 3), ("lost", 2, 3)]
)
def test_restarts_are_bounded_and_a_mistake_is_not_repeated(cloud, ending, code, starts):
    settings = TPU | {"MAX_RESTARTS": "2"}
    done = cloud.run(
        "tpu_vm.sh",
        "run",
        "--config=x",
        settings=settings,
        describe=["ACTIVE"],
        **{"worker.sh status": [ending]},
    )
    assert done.returncode == code, done.stderr
    assert sum("worker.sh start" in " ".join(given) for _, given, _ in cloud.calls) == starts
    assert "delete" not in cloud.verbs()


def test_nothing_is_deleted_without_its_name(cloud):
    done = cloud.run("tpu_vm.sh", "delete", "run-1", settings=TPU)
    assert done.returncode == 0 and cloud.verbs() == ["delete"] and "run-1" in cloud.calls[0][1]
    done = cloud.run("gke.sh", "delete", "run-1", settings=GKE)
    assert done.returncode == 0 and cloud.calls[0][1] == [
        "--namespace=default",
        "delete",
        "jobset",
        "run-1",
    ]


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
    assert job["parallelism"] == job["completions"] == 64 and pod["containers"][0]["resources"][
        "limits"
    ] == {"google.com/tpu": 4}
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] == 10
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}} in pod["volumes"]


def test_the_slurm_job_is_this_script_with_the_arguments_as_they_are(cloud):
    """What it does within a job: tests/test_launch_slurm.py."""
    done = cloud.run(
        "slurm.sh",
        *WORDS,
        settings={"NODES": "2", "GPUS": "8", "SBATCH_OPTIONS": "--partition=gpu --account=a"},
    )
    assert done.returncode == 0, done.stderr
    given = cloud.calls[0][1]
    assert given[-len(WORDS) :] == WORDS and given[-len(WORDS) - 1] == str(LAUNCH / "slurm.sh")
    wanted = {
        "--nodes=2",
        "--ntasks-per-node=8",
        "--gpus-per-node=8",
        "--time=24:00:00",
        "--requeue",
        "--signal=B:USR1@300",
    }
    assert wanted | {"--open-mode=append", "--partition=gpu", "--account=a"} <= set(given)


@pytest.mark.parametrize(("tasks", "wanted"), [({}, "1"), ({"TASKS": "4"}, "4")])
def test_without_gpus_slurm_hears_of_none(cloud, tasks, wanted):
    done = cloud.run("slurm.sh", "--config=x", settings={"NODES": "2", "GPUS": "0"} | tasks)
    given = cloud.calls[0][1]
    assert (
        done.returncode == 0
        and f"--ntasks-per-node={wanted}" in given
        and not any("gpu" in word for word in given)
    ), done.stderr


def test_a_job_without_its_checkout_says_so(tmp_path):
    """The copy that sbatch makes, with an environment that --export=NONE has emptied."""
    shutil.copy(LAUNCH / "slurm.sh", tmp_path / "slurm_script")
    done = subprocess.run(
        ["bash", tmp_path / "slurm_script"],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert (
        done.returncode == 2
        and done.stderr.startswith("error: ")
        and "submit the job with launch/slurm.sh" in done.stderr
    )


def test_a_refused_request_for_chips_is_shown_at_once(cloud):
    """Whether asked for alone or as a part of run; nothing follows."""
    for verb in ("create", "run"):
        done = cloud.run(
            "tpu_vm.sh",
            verb,
            settings=TPU,
            describe=[NOT_FOUND],
            create=[{"said": "ERROR: PERMISSION_DENIED: no quota"}],
        )
        assert done.returncode == 1 and "PERMISSION_DENIED: no quota" in done.stderr, done.stderr
        assert [word for word in cloud.verbs() if word != "describe"] == ["create"]
    done = cloud.run(
        "tpu_vm.sh", "create", settings=TPU, describe=[NOT_FOUND, "ACCEPTED", "FAILED"]
    )
    assert done.returncode == 2 and "the request for run-1 is FAILED" in done.stderr


def test_gcloud_that_cannot_say_is_no_empty_answer(cloud):
    """Neither are chips asked for twice, nor is a run given up, because a question failed; a lasting failure ends the wait."""
    broken = {"said": "ERROR: UNAVAILABLE: connection reset"}
    done = cloud.run(
        "tpu_vm.sh", "create", settings=TPU, describe=[NOT_FOUND, broken, broken, "ACTIVE"]
    )
    assert done.returncode == 0 and cloud.verbs().count("create") == 1, done.stderr
    done = cloud.run("tpu_vm.sh", "create", settings=TPU, describe=[broken])
    assert (
        done.returncode == 2 and "UNAVAILABLE" in done.stderr and cloud.verbs() == ["describe"] * 10
    )
    done = cloud.run(
        "tpu_vm.sh", "create", settings=TPU, describe=[NOT_FOUND]
    )  # What was asked for has vanished.
    assert (
        done.returncode == 2
        and "run-1 is NONE after 10 questions" in done.stderr
        and cloud.verbs().count("create") == 1
    )
    describe = ["ACTIVE", "ACTIVE", broken, "ACTIVE"]
    done = cloud.run(
        "tpu_vm.sh",
        "run",
        settings=TPU,
        describe=describe,
        **{"worker.sh status": ["running 7", "ended 0"]},
    )
    assert (
        done.returncode == 0 and "delete" not in cloud.verbs() and "restart" not in done.stderr
    ), done.stderr


@pytest.mark.parametrize(
    "failing", ["scp", "--command=bash -c", "install.sh tpu", "worker.sh start"]
)
def test_the_first_step_that_fails_ends_it(cloud, failing):
    done = cloud.run(
        "tpu_vm.sh", "run", "--config=x", settings=TPU, describe=["ACTIVE"], **{failing: [7]}
    )
    assert done.returncode == 7, done.stderr
    steps = [" ".join(given) for _, given, _ in cloud.calls if "describe" not in given]
    assert failing in steps[-1] and not any(failing in step for step in steps[:-1])


def test_a_step_that_fails_because_chips_were_taken_away_is_done_again(cloud):
    describe = ["ACTIVE", "SUSPENDED", "SUSPENDED", NOT_FOUND, "ACTIVE"]
    done = cloud.run(
        "tpu_vm.sh",
        "run",
        settings=TPU,
        describe=describe,
        **{"install.sh tpu": [1, "done"], "worker.sh status": ["ended 0"]},
    )
    assert (
        done.returncode == 0
        and cloud.verbs().count("create") == 1
        and "restart 1 of 10" in done.stderr
    ), done.stderr


@pytest.fixture
def checkout(tmp_path):
    """A copy of launch/ among other files, in a folder whose name is no help, and what of it is to be sent."""
    top = tmp_path / "it's a checkout"
    shutil.copytree(LAUNCH, top / "launch")
    shutil.copy(TOP / ".gitignore", top)
    (top / "launch" / "install.sh").write_text("#!/usr/bin/env bash\n")
    for name in (
        "vlbeit_jax/data/a.py",
        "a file",
        "-dash",
        ".venv/bin/python",
        "runs/x",
        "data/y",
        "sample_run/z",
        "a/__pycache__/b",
        "c.egg-info/d",
    ):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(name)
    (top / "link").symlink_to("a file")
    sent = {"vlbeit_jax/data/a.py", "a file", "-dash", "link", ".gitignore"}
    return top, sent | {
        f"launch/{path.relative_to(LAUNCH)}" for path in LAUNCH.rglob("*") if path.is_file()
    }


def files(folder):
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


@pytest.mark.parametrize("kind", ["git", "ZIP"])
def test_workers_get_the_checkout_as_it_is(cloud, checkout, kind):
    top, sent = checkout
    if kind == "git":
        git = [
            "git",
            "-C",
            top,
            "-c",
            "user.name=a",
            "-c",
            "user.email=a@b",
            "-c",
            "core.hooksPath=/dev/null",
        ]
        for command in (
            ["init", "--quiet"],
            ["add", "a file", "vlbeit_jax"],
            ["commit", "--quiet", "-m", "a"],
        ):
            subprocess.run([*git, *command], check=True)
    done = cloud.run(
        "tpu_vm.sh", "install", settings=TPU, launch=top / "launch", **{"run here": True}
    )
    assert done.returncode == 0, done.stderr
    remote = cloud.folder / "remote" / "vlbeit_jax"
    assert (
        files(remote) == sent
        and (remote / "a file").read_text() == "a file"
        and (remote / "link").is_symlink()
    )
    # Changed, new, deleted since; what the worker has made by itself stays.
    (top / "a file").write_text("changed")
    (top / "new").write_text("new")
    (top / "vlbeit_jax" / "data" / "a.py").unlink()
    (remote / ".venv").mkdir()
    (remote / ".venv" / "kept").write_text("kept")
    done = cloud.run(
        "tpu_vm.sh", "install", settings=TPU, launch=top / "launch", **{"run here": True}
    )
    assert done.returncode == 0, done.stderr
    assert (
        files(remote) == sent - {"vlbeit_jax/data/a.py"} | {"new", ".venv/kept"}
        and (remote / "a file").read_text() == "changed"
    )


def test_a_checkout_whose_exclusions_are_not_understood_is_not_sent(cloud, checkout):
    top, _ = checkout
    (top / ".gitignore").write_text(".venv/\n!keep\n")
    done = cloud.run("tpu_vm.sh", "install", settings=TPU, launch=top / "launch")
    assert (
        done.returncode == 2
        and "'!keep' is not understood without git" in done.stderr
        and not cloud.calls
    )


def test_pods_get_shared_memory_by_the_configuration(cloud):
    """The size is that of the formula, whose own test is tests/plan/test_shared_memory.py."""
    yaml = pytest.importorskip("yaml")
    places = [
        "--workdir=/data/run",
        "--config.data.text_tokenizer=/data/t",
        "--config.data.visual_tokenizer=/data/v",
    ]
    places += [
        f"--config.data.{name}.sources=('/data/{name}',)" for name in ("image", "text", "pair")
    ]
    arguments = ["--config=configs/pretrain_base.py", "--config.data.workers=16", *places]
    done = cloud.run("gke.sh", "start", *arguments, settings=GKE | {"SHARED_MEMORY": ""})
    assert done.returncode == 0, done.stderr
    pod = yaml.safe_load(cloud.calls[0][2])["spec"]["replicatedJobs"][0]["template"]["spec"][
        "template"
    ]["spec"]
    assert {"name": "shm", "mountPath": "/dev/shm"} in pod["containers"][0]["volumeMounts"]
    (volume,) = (each["emptyDir"] for each in pod["volumes"] if each["name"] == "shm")
    stream = {"batch_size": 2048, "sources": ("D",)}
    data = {"workers": 16, "text_tokenizer": "T", "visual_tokenizer": "V"} | {
        name: stream for name in ("image", "text", "pair")
    }
    data["pair"] = stream | {"text_length": 59, "masked_text": 0.5}
    wanted = shared_memory(
        parse({"run": {"schedule": "image+text+pair"}, "data": data}), hosts=64, chips=4
    )
    assert volume == {"medium": "Memory", "sizeLimit": wanted}
    done = cloud.run(
        "gke.sh",
        "start",
        "--config=configs/pretrain_base.py",
        "--stepz=3",
        *places,
        settings=GKE | {"SHARED_MEMORY": ""},
    )
    assert (
        done.returncode == 2 and "stepz" in done.stderr and not cloud.calls
    )  # A mistake is answered before any pod starts.
