"""What the environment says of other processes: job steps, allocations, and environments that say too little."""

import pytest

from vlbeit_jax.config import ClusterConfig
from vlbeit_jax.errors import UsageError
from vlbeit_jax.runtime import cluster

# As Slurm sets them: in a batch script with two tasks, and in a step of two tasks that srun started there.
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
    """Only these of SLURM's and the TPU's variables."""

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
def test_a_job_step_of_several_tasks_is_a_cluster_and_an_allocation_is_none(
    environment, values, kind
):
    environment(values)
    assert cluster.cluster_kind(ClusterConfig()) == kind
    assert cluster.cluster_kind(ClusterConfig(kind="tpu")) == "tpu"
    if kind == "none":
        cluster.join(ClusterConfig())  # Nobody is waited for.


def test_a_step_says_where_this_process_stands(environment):
    environment(STEP)
    address, devices = cluster._from_environment("slurm", 5)
    assert (address.processes, address.process, devices) == (
        2,
        1,
        [0],
    ) and address.coordinator.startswith("node1:")


@pytest.mark.parametrize("missing", cluster.SLURM_STEP)
def test_what_slurm_has_not_set_is_a_usage_error(environment, missing):
    environment({name: value for name, value in STEP.items() if name != missing})
    with pytest.raises(
        UsageError, match=f"no job step, because {missing} is not set; start it with srun"
    ):
        cluster.join(ClusterConfig(kind="slurm"))


@pytest.mark.parametrize(("name", "value"), [("SLURM_JOB_ID", "seven"), ("SLURM_NTASKS", "many")])
def test_what_nobody_can_read_is_a_usage_error(environment, name, value):
    environment(STEP | {name: value})
    with pytest.raises(
        UsageError,
        match="config.cluster.kind=slurm: the environment does not say where the other processes are: .*"
        + value[:3],
    ):
        cluster.join(ClusterConfig())
