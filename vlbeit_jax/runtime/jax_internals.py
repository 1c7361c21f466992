"""The functions of JAX that have no public name. No other file uses ``jax._src``.

JAX reads a cluster's environment only inside its own initialisation, but the rendezvous needs it
earlier. JAX's key-value store works before any device is initialised; Orbax uses it as well.
"""

from collections.abc import Sequence
from typing import Any, cast

LOGGER_OF_CONNECTING = "jax._src.distributed"


def detect_process(
    method: str | None, seconds: int
) -> tuple[str | None, int | None, int | None, Sequence[int] | None]:
    """Returns what the cluster's environment says about this process.

    Args:
      method: JAX's name for the kind of cluster; None takes the first kind that JAX detects.
      seconds: how long to wait if JAX has to ask over the network.

    Returns:
      Address and port of the coordinator, number of processes, index of this process, and its local
      devices; None for each that the environment does not give.
    """
    from jax._src import clusters

    return clusters.ClusterEnv.auto_detect_unset_distributed_params(
        None, None, None, None, method, seconds
    )


def key_value_store() -> Any:
    """Returns the coordinator's store; None in a single process.

    ``jax.distributed.initialize`` has connected to it.
    """
    from jax._src import distributed

    return cast(Any, distributed.global_state.client)


def process_and_count() -> tuple[int, int]:
    """Returns the index of this process and the number of processes; initialises no device."""
    from jax._src import distributed

    return distributed.global_state.process_id, distributed.global_state.num_processes
