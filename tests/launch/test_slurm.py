"""launch/slurm.sh on a real SLURM cluster of one node, from sbatch to the end of the job."""

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
    """The workdir of a job of one process that has trained to the end."""
    workdir = slurm.folder / "alone"
    number = slurm.submit(LAUNCH / "slurm.sh", f"--config={config}", f"--workdir={workdir}")
    job = slurm.ended(number, 300)
    print(f"== one process\n{slurm.output(number)}")
    assert ended(job) == ("COMPLETED", "0:0", "0"), slurm.output(number)
    return workdir


def ended(job):
    return job["JobState"], job["ExitCode"], job["Restarts"]


def checkpoints(workdir):
    names = (path.name for path in (workdir / "checkpoints").iterdir())
    return sorted(int(name) for name in names if name.isdecimal())


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
    assert checkpoints(workdir)[-1] == 60 and "2 x CPU on 2 hosts" in said


def test_one_process_within_an_allocation_of_two_tasks_is_alone(slurm, config):
    """A batch script that calls Python without srun sees two tasks, but is in no job step."""
    script = slurm.folder / "script.sh"
    script.write_text('#!/usr/bin/env bash\ncd "$TOP" && exec "$PYTHON" -m vlbeit_jax.main "$@"\n')
    arguments = [
        f"--config={config}",
        "--config.run.steps=3",
        "--config.run.log_every=1",
        "--config.cluster.initialization_timeout=10",
    ]
    sbatch = ["sbatch", "--ntasks=2", script, *arguments]
    top = str(tiny.TOP)
    number = slurm.submit(*sbatch, f"--workdir={slurm.folder / 'single'}", TOP=top)
    assert slurm.ended(number, 300)["JobState"] == "COMPLETED", slurm.output(number)
    forced = ["--config.cluster.kind=slurm", f"--workdir={slurm.folder / 'forced'}"]
    number = slurm.submit(*sbatch, *forced, TOP=top)
    job, said = slurm.ended(number, 300), slurm.output(number)
    assert job["ExitCode"] == "2:0" and "start it with srun" in said, said
    assert "Traceback" not in said


@pytest.fixture
def stub(slurm, tmp_path):
    """A function that submits a job whose interpreter is some lines of bash."""

    def submit(text, **settings):
        python = tmp_path / "python"
        python.write_text(f"#!/usr/bin/env bash\n{text}\n")
        python.chmod(0o755)
        return slurm.submit(
            LAUNCH / "slurm.sh", "--config=x", "--a=two words", PYTHON=str(python), **settings
        )

    return submit


def test_sbatch_may_be_called_from_the_checkout_too(slurm):
    """The job looks for the checkout where it was submitted; elsewhere it says what is missing."""
    output = f"--output={slurm.folder}/slurm-%j.out"
    sbatch = ["sbatch", "--ntasks=2", output, LAUNCH / "slurm.sh", "--config=x"]
    for folder, code in ((tiny.TOP, "0:0"), (slurm.folder, "2:0")):
        number = slurm.submit(*sbatch, folder=folder, PYTHON="true")
        job, said = slurm.ended(number, 60), slurm.output(number)
        assert (job["ExitCode"], job["Requeue"], job["JobName"]) == (code, "1", "vlbeit_jax"), said
    assert "submit the job with launch/slurm.sh, or with sbatch from the checkout" in said


def test_a_mistake_in_the_command_ends_the_job(slurm, stub):
    """Even if only one task makes it, while the other one waits."""
    number = stub("[[ $SLURM_PROCID == 1 ]] && exit 2\nexec sleep 100", TASKS="2")
    job, said = slurm.ended(number, 60), slurm.output(number)
    assert ended(job) == ("FAILED", "2:0", "0") and "restart" not in said, said


def test_a_crash_is_restarted_within_the_job_a_few_times(slurm, stub, tmp_path):
    """The crash of one task ends all; arguments and folder are the same every time."""
    note = f'[[ $SLURM_PROCID == 1 ]] || printf "%s\\n" "$PWD" "$@" >>{tmp_path}/got'
    second_start_ends, first_task_crashes = (
        "((SLURM_STEP_ID == 0)) || exit 0",
        "[[ $SLURM_PROCID == 1 ]] || exit 1",
    )
    lines = [note, second_start_ends, first_task_crashes, "exec sleep 100"]
    number = stub("\n".join(lines), TASKS="2")
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
    assert ended(job) == ("FAILED", "3:0", "0")
    assert slurm.output(number).count("restart") == 1


def test_a_job_that_is_cancelled_stays_cancelled(slurm, stub):
    number = stub("echo here\nexec sleep 100")
    wait_for(lambda: "here" in slurm.output(number))
    assert slurm.run("scancel", number).returncode == 0
    job = slurm.ended(number, 60)
    assert (job["JobState"], job["Restarts"]) == ("CANCELLED", "0"), slurm.output(number)


def test_a_preempted_job_resumes_later(slurm, stub):
    number = stub(
        "echo start ${SLURM_RESTART_COUNT:-0}\n[[ -n ${SLURM_RESTART_COUNT:-} ]] || exec sleep 100"
    )
    wait_for(lambda: "start 0" in slurm.output(number))
    urgent = slurm.submit("sbatch", "--partition=urgent", "--ntasks=4", "--wrap=sleep 3")
    assert slurm.ended(urgent, 60)["JobState"] == "COMPLETED"
    job, said = slurm.ended(number, 60), slurm.output(number)
    assert ended(job) == ("COMPLETED", "0:0", "1") and "start 1" in said, said


def test_a_job_at_its_time_limit_requeues_itself_and_finishes(slurm, config, alone):
    """Slurm counts limits in minutes and looks every 30 s: the notice comes 25 to 55 s after start.

    The run must last longer than that. Once it has resumed, the limit is raised, so that this start
    is the last one.
    """
    rate = max(line["samples_per_second"] for line in tiny.metrics_of(alone)) / 8
    steps = 10 * round(7.5 * rate)  # Those of 75 s.
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
    while "resumes at step" not in slurm.output(number):
        assert time.monotonic() < deadline, slurm.output(number)
        assert slurm.job(number)["JobState"] not in cluster.ENDED, slurm.output(number)
        time.sleep(0.5)
    assert slurm.run("scontrol", "update", f"JobId={number}", "TimeLimit=30").returncode == 0
    job = slurm.ended(number, 400)
    said = slurm.output(number)
    print(f"== time limit\n{said}")
    assert ended(job)[:2] == ("COMPLETED", "0:0") and job["TimeLimit"] == "00:30:00", said
    found = re.findall(r"resumes at step ([\d,]+) of", said)
    starts = [int(step.replace(",", "")) for step in found]
    assert 0 < starts[0] <= starts[-1] < steps, said
    # No step is lost: each start goes on from the step that the notice made the run save.
    assert re.findall(r"SIGTERM came; step ([\d,]+) is saved", said) == found, said
    assert said.count("requeues itself") == int(job["Restarts"]) >= 1
    assert checkpoints(workdir)[-1] == steps
