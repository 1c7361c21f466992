"""How the processes of a run find each other."""

import glob
import importlib.util
import logging
import os
from collections.abc import Sequence

import jax

from vlbeit_jax.config.common import ClusterConfig
from vlbeit_jax.errors import UsageError
from vlbeit_jax.runtime.jax_internals import LOGGER_OF_CONNECTING, detect_process
from vlbeit_jax.runtime.rendezvous import ProcessAddress, own_interface, rendezvous

# What srun sets for every process of a job step, and JAX reads.
SLURM_STEP = (
    "SLURM_JOB_ID",
    "SLURM_STEP_NODELIST",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "SLURM_LOCALID",
)
JAX_NAMES = {"slurm": "slurm", "tpu": None, "kubernetes": "k8s"}  # None: JAX detects the kind.


def join(config: ClusterConfig, address: ProcessAddress | None = None) -> None:
    """Connects this process with the others, or returns at once if there are no others.

    Call it once, before any device is used.

    Args:
      config: kind of cluster, and how long to wait.
      address: of this process; None reads it from the environment.

    Raises:
      PeerLost: a process did not come in time.
      UsageError: the environment is not of the configured kind, or the processes contradict each
        other.
    """
    devices = None
    if address is None:
        kind = cluster_kind(config)
        if kind == "none":
            return
        address, devices = _from_environment(kind, config.initialization_timeout)
    if address.processes == 1:
        return
    rendezvous(address, config.initialization_timeout)
    logging.getLogger(LOGGER_OF_CONNECTING).setLevel(logging.WARNING)
    # It would take SIGTERM from runtime.signals, and tell nobody who does not ask at every step.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        address.coordinator,
        address.processes,
        address.process,
        local_device_ids=devices,
        cluster_detection_method="deactivate",
        initialization_timeout=config.initialization_timeout,
        heartbeat_timeout_seconds=config.heartbeat_timeout,
        shutdown_timeout_seconds=config.shutdown_timeout,
        coordinator_bind_address=_bind_address(address),
    )


def _bind_address(address: ProcessAddress) -> str | None:
    """Returns where JAX's coordinator listens; None leaves it to JAX: on all interfaces."""
    interface = own_interface(address.host) if address.process == 0 else ""
    if not interface or "JAX_COORDINATOR_BIND_ADDRESS" in os.environ:
        return None
    return f"[{interface}]:{address.port}" if ":" in interface else f"{interface}:{address.port}"


def cluster_kind(config: ClusterConfig) -> str:
    """Returns the configured kind of cluster; for "auto", the kind that the environment shows."""
    if config.kind != "auto":
        return config.kind
    # Only srun sets SLURM_STEP_NUM_TASKS. A batch script and a shell of salloc see the tasks of the
    # whole allocation in SLURM_NTASKS, but are a single process.
    if os.environ.get("SLURM_STEP_NUM_TASKS", "1") != "1":
        return "slurm"
    chips = glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*")
    has_tpu = bool(chips) and importlib.util.find_spec("libtpu") is not None
    if has_tpu or "," in os.environ.get("TPU_WORKER_HOSTNAMES", ""):
        return "tpu"
    return "none"


def _from_environment(kind: str, seconds: int) -> tuple[ProcessAddress, Sequence[int] | None]:
    """Returns this process's address and local devices, as JAX reads them from the environment."""
    if kind == "slurm" and (unset := [name for name in SLURM_STEP if name not in os.environ]):
        raise UsageError(
            f"config.cluster.kind=slurm: this process is in no job step, because "
            f"{', '.join(unset)} is not set; start it with srun, or set "
            "--config.cluster.kind=none for a single process"
        )
    try:
        coordinator, count, process, devices = detect_process(JAX_NAMES[kind], seconds)
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        reason = f"{error.args[0]} is not set" if isinstance(error, KeyError) else str(error)
        raise UsageError(
            f"config.cluster.kind={kind}: the environment does not say where the other processes "
            f"are: {reason}"
        ) from error
    if coordinator is None or count is None or process is None:
        raise UsageError(
            f"config.cluster.kind={kind}: this is not such an environment; give --coordinator, "
            "--processes and --process, or set --config.cluster.kind=none for a single process"
        )
    return ProcessAddress(coordinator, count, process), devices
