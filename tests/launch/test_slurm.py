"""launch/slurm.sh on a real SLURM cluster of one node, from sbatch to the end of the job."""

import json
import os
import re
import sys
import time

import pytest

from tests import tiny
from tests.launch import slurm_cluster as cluster
from tests.launch.stand_ins import LAUNCH, wait_for

pytestmark = pytest.mark.slow
SETTINGS = {"NODES": "1", "GPUS": "0", "PYTHON": sys.executable, "RETRY_SECONDS": "1"}


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=1"
    with cluster.running(tmp_path_factory.mktemp("slurm")) as found:
        found.environment |= SETTINGS | {"XLA_FLAGS": flags}
        yield found


@pytest.fixture(scope="module")
def config(world, tmp_path_factory):
    """Texts alone, with a checkpoint every tenth step."""
    values = tiny.pretrain_config(
        world, schedule="text", steps=60, checkpoint_every=10, log_every=20
    )
    return tiny.config_file(values, tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="module")
def alone(slurm, config):
    """A job of one process that trains to the end: its workdir."""
    workdir = slurm.folder / "alone"
    number = slurm.submit(LAUNCH / "slurm.sh", f"--config={config}", f"--workdir={workdir}")
    job = slurm.ended(number, 300)
    print(f"== one process\n{slurm.output(number)}")
    assert (job["JobState"], job["ExitCode"], job["Restarts"]) == ("COMPLETED", "0:0", "0"), (
        slurm.output(number)
    )
    return workdir


def checkpoints(workdir):
    return sorted(
        int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal()
    )


def test_one_process_trains_to_the_end(alone):
    assert checkpoints(alone)[-1] == 60 and "hosts" not in (alone / "log.txt").read_text()


def test_two_tasks_are_one_run(slurm, config):
    workdir = slurm.folder / "two"
    number = slurm.submit(
        LAUNCH / "slurm.sh", f"--config={config}", f"--workdir={workdir}", TASKS="2"
    )
    job = slurm.ended(number, 300)
    said = slurm.output(number)
    print(f"== two tasks\n{said}")
    assert (job["JobState"], job["NumTasks"]) == ("COMPLETED", "2"), said
    assert checkpoints(workdir)[-1] == 60 and "on 2 device(s) of 2 hosts" in said


def test_one_process_within_an_allocation_of_two_tasks_is_alone(slurm, config):
    """A batch script that calls Python without srun sees the tasks of the allocation, and no step."""
    script = slurm.folder / "script.sh"
    script.write_text('#!/usr/bin/env bash\ncd "$TOP" && exec "$PYTHON" -m vlbeit_jax.main "$@"\n')
    arguments = [
        f"--config={config}",
        "--config.run.steps=3",
        "--config.run.log_every=1",
        "--config.cluster.initialization_timeout=10",
    ]
    sbatch = ["sbatch", "--ntasks=2", script, *arguments]
    number = slurm.submit(*sbatch, f"--workdir={slurm.folder / 'single'}", TOP=str(tiny.TOP))
    assert slurm.ended(number, 300)["JobState"] == "COMPLETED", slurm.output(number)
    forced = slurm.submit(
        *sbatch,
        f"--workdir={slurm.folder / 'forced'}",
        "--config.cluster.kind=slurm",
        TOP=str(tiny.TOP),
    )
    job = slurm.ended(forced, 300)
    assert job["ExitCode"] == "2:0" and "start it with srun" in slurm.output(forced), slurm.output(
        forced
    )
    assert "Traceback" not in slurm.output(forced)


@pytest.fixture
def stub(slurm, tmp_path):
    """Submits a job whose interpreter is a few lines of bash; gives its number."""

    def submit(text, **settings):
        python = tmp_path / "python"
        python.write_text(f"#!/usr/bin/env bash\n{text}\n")
        python.chmod(0o755)
        return slurm.submit(
            LAUNCH / "slurm.sh", "--config=x", "--a=two words", PYTHON=str(python), **settings
        )

    return submit


def test_sbatch_may_be_called_from_the_checkout_too(slurm):
    """The job finds the checkout in the folder of the submission; anywhere else it says what is missing."""
    for folder, code in ((tiny.TOP, "0:0"), (slurm.folder, "2:0")):
        output = f"--output={slurm.folder}/slurm-%j.out"
        number = slurm.submit(
            "sbatch",
            "--ntasks=2",
            output,
            LAUNCH / "slurm.sh",
            "--config=x",
            folder=folder,
            PYTHON="true",
        )
        job = slurm.ended(number, 60)
        assert (job["ExitCode"], job["Requeue"], job["JobName"]) == (code, "1", "vlbeit_jax"), (
            slurm.output(number)
        )
    assert "submit the job with launch/slurm.sh, or with sbatch from the checkout" in slurm.output(
        number
    )


def test_a_mistake_in_the_command_ends_the_job(slurm, stub):
    """Also where one task alone makes it: the other one is waiting then."""
    number = stub("[[ $SLURM_PROCID == 1 ]] && exit 2\nexec sleep 100", TASKS="2")
    job = slurm.ended(number, 60)
    assert (job["JobState"], job["ExitCode"], job["Restarts"]) == ("FAILED", "2:0", "0"), (
        slurm.output(number)
    )
    assert "restart" not in slurm.output(number)


def test_a_crash_is_started_again_within_the_job_a_few_times(slurm, stub, tmp_path):
    """The crash of one task ends all; arguments and folder are the same every time."""
    note = f'[[ $SLURM_PROCID == 1 ]] || printf "%s\\n" "$PWD" "$@" >>{tmp_path}/got'
    number = stub(
        f"{note}\n((SLURM_STEP_ID == 0)) || exit 0\n[[ $SLURM_PROCID == 1 ]] || exit 1\nexec sleep 100",
        TASKS="2",
    )
    assert slurm.ended(number, 60)["JobState"] == "COMPLETED", slurm.output(number)
    assert slurm.output(number).count("restart 1 of 3") == 1
    assert (tmp_path / "got").read_text().splitlines() == [
        str(tiny.TOP),
        "-m",
        "vlbeit_jax.main",
        "--config=x",
        "--a=two words",
    ] * 2
    number = stub("exit 3", MAX_RESTARTS="1")
    job = slurm.ended(number, 60)
    assert (job["JobState"], job["ExitCode"], job["Restarts"]) == (
        "FAILED",
        "3:0",
        "0",
    ) and slurm.output(number).count("restart") == 1


def test_a_job_that_is_cancelled_stays_cancelled(slurm, stub):
    number = stub("echo here\nexec sleep 100")
    wait_for(lambda: "here" in slurm.output(number))
    assert slurm.run("scancel", number).returncode == 0
    job = slurm.ended(number, 60)
    assert (job["JobState"], job["Restarts"]) == ("CANCELLED", "0"), slurm.output(number)


def test_a_job_that_is_preempted_goes_on_later(slurm, stub):
    number = stub(
        "echo start ${SLURM_RESTART_COUNT:-0}\n[[ -n ${SLURM_RESTART_COUNT:-} ]] || exec sleep 100"
    )
    wait_for(lambda: "start 0" in slurm.output(number))
    urgent = slurm.submit("sbatch", "--partition=urgent", "--ntasks=4", "--wrap=sleep 3")
    assert slurm.ended(urgent, 60)["JobState"] == "COMPLETED"
    job = slurm.ended(number, 60)
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1") and "start 1" in slurm.output(
        number
    ), slurm.output(number)


def test_a_job_at_its_time_limit_requeues_itself_and_finishes(slurm, config, alone):
    """Slurm counts limits in minutes and looks every 30 s, so that the notice comes 25 to 55 s after the start.

    The run is to last longer than that. Once a start has gone on from a checkpoint, the limit is raised, so that this start is the last.
    """
    lines = [json.loads(line) for line in (alone / "metrics.jsonl").read_text().splitlines()]
    steps = 10 * round(7.5 * max(line["samples_per_second"] for line in lines) / 8)  # 75 s of them.
    workdir = slurm.folder / "limit"
    number = slurm.submit(
        LAUNCH / "slurm.sh",
        f"--config={config}",
        f"--workdir={workdir}",
        f"--config.run.steps={steps}",
        "--config.run.log_every=1000",
        SBATCH_OPTIONS="--time=1",
        NOTICE_SECONDS="5",
    )
    deadline = time.monotonic() + 400
    while not re.search(r"from step [1-9]", slurm.output(number)):
        assert time.monotonic() < deadline and slurm.job(number)["JobState"] not in cluster.ENDED, (
            slurm.output(number)
        )
        time.sleep(0.5)
    assert slurm.run("scontrol", "update", f"JobId={number}", "TimeLimit=30").returncode == 0
    job = slurm.ended(number, 400)
    said = slurm.output(number)
    print(f"== time limit\n{said}")
    assert (job["JobState"], job["ExitCode"]) == ("COMPLETED", "0:0") and job[
        "TimeLimit"
    ] == "00:30:00", said
    starts = [int(step) for step in re.findall(r"from step (\d+) to", said)]
    assert starts[0] == 0 < starts[-1] < steps and all(step % 10 == 0 for step in starts), said
    assert (
        said.count("requeues itself") == int(job["Restarts"]) >= 1
        and checkpoints(workdir)[-1] == steps
    )
