"""Several processes as one program: how they find each other, and what they have to agree on before the first collective.

Everything here goes through the coordinator's key-value store, which works before any device has been touched. What one host
would do alone (write files, refuse a folder) the first one does, and all of them learn how it ended.
"""

import contextlib
import glob
import importlib.util
import json
import logging
import os
import socket
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import jax

from vlbeit_jax.config import ClusterConfig
from vlbeit_jax.errors import UsageError
from vlbeit_jax.runtime.jax_internals import LOGGER_OF_CONNECTING, key_value_store, place_in_cluster
from vlbeit_jax.runtime.roll_call import Place, roll_call

MISSING = "nothing"
SLURM_STEP = (
    "SLURM_JOB_ID",
    "SLURM_STEP_NODELIST",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    "SLURM_LOCALID",
)  # What srun sets and JAX reads.
Result = TypeVar("Result")


def join(config: ClusterConfig, place: Place | None = None) -> None:
    """Connects this process with the others, exactly once; does nothing where there are no others.

    Args:
      config: which kind of cluster, and how long to wait.
      place: explicit; otherwise the environment says it.

    Raises:
      UsageError: not all came in time, or the environment is not of that kind.
    """
    kind, devices = "explicit", None
    if place is None:
        kind = found_kind(config)
        if kind == "none":
            return
        place, devices = _from_environment(kind, config.initialization_timeout)
    if place.processes == 1:
        return
    roll_call(place, config.initialization_timeout)
    logging.getLogger(LOGGER_OF_CONNECTING).setLevel(logging.WARNING)
    jax.distributed.initialize(
        place.coordinator,
        place.processes,
        place.process,
        local_device_ids=devices,
        cluster_detection_method="deactivate",
        initialization_timeout=config.initialization_timeout,
        heartbeat_timeout_seconds=config.heartbeat_timeout,
        shutdown_timeout_seconds=config.shutdown_timeout,
    )


def _from_environment(kind: str, seconds: int) -> tuple[Place, Sequence[int] | None]:
    """This process's place and devices, as JAX reads them from a cluster's environment."""
    if kind == "slurm" and (unset := [name for name in SLURM_STEP if name not in os.environ]):
        raise UsageError(
            f"config.cluster.kind=slurm: this process is in no job step, because {', '.join(unset)} is not set; start it with srun, or "
            "set --config.cluster.kind=none for a single process"
        )
    method = {"slurm": "slurm", "tpu": None, "kubernetes": "k8s"}[kind]
    try:
        address, count, which, devices = place_in_cluster(method, seconds)
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        said = f"{error.args[0]} is not set" if isinstance(error, KeyError) else str(error)
        raise UsageError(
            f"config.cluster.kind={kind}: the environment does not say where the others are: {said}"
        ) from error
    if address is None or count is None or which is None:
        raise UsageError(
            f"config.cluster.kind={kind}: this is no such environment; give --coordinator, --processes and --process, or "
            "--config.cluster.kind=none for a single process"
        )
    return Place(address, count, which), devices


def found_kind(config: ClusterConfig) -> str:
    """The kind of cluster: as the configuration says, or for "auto" what the environment looks like."""
    if config.kind != "auto":
        return config.kind
    # What srun started is a step. A batch script and a shell of salloc are none: they see the tasks of the whole allocation in
    # SLURM_NTASKS, and are one process nevertheless.
    if os.environ.get("SLURM_STEP_NUM_TASKS", "1") != "1":
        return "slurm"
    has_chips = (
        bool(glob.glob("/dev/accel*") or glob.glob("/dev/vfio/[0-9]*"))
        and importlib.util.find_spec("libtpu") is not None
    )
    if has_chips or "," in os.environ.get("TPU_WORKER_HOSTNAMES", ""):
        return "tpu"
    return "none"


@contextlib.contextmanager
def fails_together() -> Iterator[None]:
    """Ends this process at once on an error that the others do not know of, so that they end too instead of waiting for it.

    Left to itself, Python would wait in JAX's shutdown for the others, who wait in a collective for this one.
    """
    try:
        yield
    except UsageError:
        raise  # Said by all of them.
    except BaseException:
        if jax.process_count() == 1:
            raise
        print(
            f"host {socket.gethostname()} (process {jax.process_index()} of {jax.process_count()}) failed:",
            file=sys.stderr,
        )
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def is_first() -> bool:
    """Whether this process is the one that writes files."""
    return jax.process_index() == 0


class Agreement:
    """Rounds of talk among all processes, each with a name of its own."""

    def __init__(self, seconds: int):
        """``seconds``: how long to wait for the others in each round."""
        self._client, self._wait = key_value_store(), 1000 * seconds
        self._me, self._count, self._round = jax.process_index(), jax.process_count(), 0

    def check(self, facts: Mapping[str, Any]) -> None:
        """Compares facts with those of process 0.

        Raises:
          UsageError: on every process alike, with each host, field and both values that differ, or the hosts that said nothing.
        """
        if self._count == 1:
            return
        said = self._exchange({"facts": dict(facts)})
        first = said[0]["facts"]
        wrong = [
            f"{name}: {theirs['facts'].get(name, MISSING)!r} on host {theirs['host']} (process {process}), "
            f"{first.get(name, MISSING)!r} on host {said[0]['host']} (process 0)"
            for process, theirs in said.items()
            for name in sorted({*first, *theirs["facts"]})
            if theirs["facts"].get(name, MISSING) != first.get(name, MISSING)
        ]
        if wrong:
            raise UsageError("the hosts do not run the same thing:\n  " + "\n  ".join(wrong))

    def each(self, action: Callable[[], Result]) -> Result:
        """Has every process do something; a ``UsageError`` of any of them becomes that of all, with the hosts' names."""
        result, error = None, None
        try:
            result = action()
        except UsageError as found:
            if self._count == 1:
                raise
            error = str(found)
        if self._count > 1:
            said = self._exchange({"error": error})
            failed = [
                f"host {each['host']} (process {process}): {each['error']}"
                for process, each in said.items()
                if each["error"]
            ]
            if failed:
                raise UsageError("\n".join(failed))
        return cast(Result, result)

    def first(self, action: Callable[[], None]) -> None:
        """Has process 0 do something while the others wait; its ``UsageError`` becomes that of all."""
        self.each(action if self._me == 0 else lambda: None)

    def _exchange(self, mine: Mapping[str, Any]) -> dict[int, Any]:
        """What every process says in this round, and its host."""
        self._round += 1
        mine = {"host": socket.gethostname(), **mine}
        place = f"vlbeit_jax/{self._round}"
        self._client.key_value_set(f"{place}/{self._me}", json.dumps(mine))
        said, silent = {}, []
        for process in range(self._count):
            try:
                # Who has not spoken while the first silent one was waited for gets no second wait.
                wait = 1000 if silent else self._wait
                said[process] = json.loads(
                    self._client.blocking_key_value_get(f"{place}/{process}", wait)
                )
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise
                silent.append(process)
        if silent:
            raise UsageError(
                f"no word of process(es) {', '.join(map(str, silent))} of {self._count} within {self._wait // 1000} s"
            )
        return said
