"""launch/slurm.sh: how it submits itself. What it does within a job is in test_slurm.py."""

import os
import shutil
import subprocess

import pytest

from tests.launch.stand_ins import LAUNCH, WORDS


def test_the_job_is_this_script_with_the_arguments_as_they_are(cloud):
    settings = {"NODES": "2", "GPUS": "8", "SBATCH_OPTIONS": "--partition=gpu --account=a"}
    done = cloud.run("slurm.sh", *WORDS, settings=settings)
    assert done.returncode == 0, done.stderr
    given = cloud.calls[0][1]
    assert given[-len(WORDS) - 1 :] == [str(LAUNCH / "slurm.sh"), *WORDS]
    assert set(given) >= {
        "--nodes=2",
        "--ntasks-per-node=8",
        "--gpus-per-node=8",
        "--time=24:00:00",
        "--requeue",
        "--signal=B:USR1@300",
        "--open-mode=append",
        "--partition=gpu",
        "--account=a",
    }


@pytest.mark.parametrize(("tasks", "wanted"), [({}, "1"), ({"TASKS": "4"}, "4")])
def test_a_job_without_gpus_requests_none(cloud, tasks, wanted):
    done = cloud.run("slurm.sh", "--config=x", settings={"NODES": "2", "GPUS": "0"} | tasks)
    assert done.returncode == 0, done.stderr
    given = cloud.calls[0][1]
    assert f"--ntasks-per-node={wanted}" in given
    assert not any("gpu" in word for word in given)


def test_a_job_that_cannot_find_its_checkout_says_so(tmp_path):
    """As sbatch starts it: from a copy, with an environment that --export=NONE has emptied."""
    shutil.copy(LAUNCH / "slurm.sh", tmp_path / "slurm_script")
    done = subprocess.run(
        ["bash", tmp_path / "slurm_script"],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stderr.startswith("error: ")
    assert "submit the job with launch/slurm.sh" in done.stderr
