"""launch/gke.sh: the JobSet that kubectl gets."""

import pytest

from tests.launch.stand_ins import GKE, WORDS
from vlbeit_jax.runtime.shared_memory import shared_memory
from vlbeit_jax.tasks import parse

STREAMS = ("image", "text", "pair")


def applied(cloud):
    """Returns job and pod of the JobSet that kubectl was given."""
    yaml = pytest.importorskip("yaml")
    jobset = yaml.safe_load(cloud.calls[0][2])["spec"]
    job = jobset["replicatedJobs"][0]["template"]["spec"]
    return jobset, job, job["template"]["spec"]


def test_the_jobset_holds_the_arguments_as_they_are(cloud):
    done = cloud.run("gke.sh", "start", *WORDS, settings=GKE)
    assert done.returncode == 0, done.stderr
    name, given, _ = cloud.calls[0]
    assert name == "kubectl" and given == ["--namespace=default", "apply", "--filename=-"]
    jobset, job, pod = applied(cloud)
    container = pod["containers"][0]
    assert container["args"] == WORDS and container["image"] == GKE["IMAGE"]
    assert container["resources"]["limits"] == {"google.com/tpu": 4}
    assert job["parallelism"] == job["completions"] == 64
    assert jobset["failurePolicy"]["maxRestarts"] == 10
    # As process 1 of a container, a run that is stuck in C could not be killed by its watcher.
    assert pod["shareProcessNamespace"] is True and pod["terminationGracePeriodSeconds"] == 120
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}} in pod["volumes"]


def test_a_jobset_is_deleted_by_its_name(cloud):
    done = cloud.run("gke.sh", "delete", "run-1", settings=GKE)
    assert done.returncode == 0, done.stderr
    assert cloud.calls[0][1] == ["--namespace=default", "delete", "jobset", "run-1"]


def test_pods_get_shared_memory_by_the_configuration(cloud):
    """Its size comes from the formula, whose own test is tests/runtime/test_shared_memory.py."""
    arguments = [
        "--config=configs/pretrain_base.py",
        "--workdir=/data/run",
        "--config.task.text_tokenizer=/data/t",
        "--config.task.visual_tokenizer=/data/v",
        *(f"--config.task.{name}.sources=('/data/{name}',)" for name in STREAMS),
    ]
    settings = GKE | {"SHARED_MEMORY": ""}
    done = cloud.run("gke.sh", "start", *arguments, "--config.loader.workers=16", settings=settings)
    assert done.returncode == 0, done.stderr
    *_, pod = applied(cloud)
    assert {"name": "shm", "mountPath": "/dev/shm"} in pod["containers"][0]["volumeMounts"]
    (volume,) = (each["emptyDir"] for each in pod["volumes"] if each["name"] == "shm")
    stream = {"batch_size": 2048, "sources": ("D",)}
    task = {"text_tokenizer": "T", "visual_tokenizer": "V"} | dict.fromkeys(STREAMS, stream)
    config = parse({"task": task, "loader": {"workers": 16}})
    size = shared_memory(config, hosts=64, chips=4)
    assert volume == {"medium": "Memory", "sizeLimit": size}


def test_a_mistake_in_the_configuration_is_reported_before_any_pod_starts(cloud):
    settings = GKE | {"SHARED_MEMORY": ""}
    arguments = ["--config=configs/pretrain_base.py", "--workdir=/data/run", "--stepz=3"]
    done = cloud.run("gke.sh", "start", *arguments, settings=settings)
    assert done.returncode == 2 and "stepz" in done.stderr and not cloud.calls
