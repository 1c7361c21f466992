"""What the environment says about other processes: job steps, allocations, incomplete variables."""

import pytest

from vlbeit_jax.config.common import ClusterConfig
from vlbeit_jax.errors import UsageError
from vlbeit_jax.runtime import cluster

# As Slurm sets them: in a batch script with two tasks, and in a step that srun starts there.
ALLOCATION = {
    "SLURM_JOB_ID": "7",
    "SLURM_NTASKS": "2",
    "SLURM_NPROCS": "2",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}
STEP = ALLOCATION | {
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_NODELIST": "node[1-2]",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_PROCID": "1",
}


@pytest.fixture
def environment(monkeypatch):
    """Sets the variables of SLURM and TPUs to given values, and no others."""

    def put(values):
        for name in [*STEP, "TPU_WORKER_HOSTNAMES"]:
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    put({})
    return put


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({}, "none"),
        (ALLOCATION, "none"),
        (STEP, "slurm"),
        (STEP | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1"}, "none"),
        (STEP | {"SLURM_STEP_NUM_TASKS": "1"}, "none"),  # srun -n 1 within an allocation of two.
    ],
    ids=["none", "allocation", "step", "step of one", "step of one within two"],
)
def test_a_job_step_of_several_tasks_is_a_cluster_but_an_allocation_is_not(
    environment, values, kind
):
    environment(values)
    assert cluster.cluster_kind(ClusterConfig()) == kind
    assert cluster.cluster_kind(ClusterConfig(kind="tpu")) == "tpu"
    if kind == "none":
        cluster.join(ClusterConfig())  # Returns at once.


def test_a_job_step_gives_the_address_of_a_process(environment):
    environment(STEP)
    address, devices = cluster._from_environment("slurm", 5)
    assert (address.processes, address.process, devices) == (2, 1, [0])
    assert address.coordinator.startswith("node1:")


@pytest.mark.parametrize("missing", cluster.SLURM_STEP)
def test_a_missing_variable_is_a_usage_error(environment, missing):
    environment({name: value for name, value in STEP.items() if name != missing})
    message = f"no job step, because {missing} is not set; start it with srun"
    with pytest.raises(UsageError, match=message):
        cluster.join(ClusterConfig(kind="slurm"))


@pytest.mark.parametrize(("name", "value"), [("SLURM_JOB_ID", "seven"), ("SLURM_NTASKS", "many")])
def test_a_variable_that_is_no_number_is_a_usage_error(environment, name, value):
    environment(STEP | {name: value})
    message = "kind=slurm: the environment does not say where the other processes are: .*"
    with pytest.raises(UsageError, match=message + value[:3]):
        cluster.join(ClusterConfig())
