"""Functions of JAX that have no public name. No other file uses ``jax._src``, so only this one changes if a release moves them.

JAX gives what it finds in a cluster's environment only to its own initialisation, and we need it earlier, for the roll call. JAX's
key-value store works before any device is initialised; Orbax and others use it in the same way.
"""

from collections.abc import Sequence
from typing import Any, cast

LOGGER_OF_CONNECTING = "jax._src.distributed"


def place_in_cluster(
    method: str | None, seconds: int
) -> tuple[str | None, int | None, int | None, Sequence[int] | None]:
    """Returns what the cluster's environment says about this process.

    Args:
      method: JAX's name of the kind of cluster; None takes the first kind that JAX detects.
      seconds: how long to wait if JAX has to ask over the network.

    Returns:
      The coordinator's address with its port, the number of processes, the index of this one, and its local devices; None for each
      that the environment does not give.
    """
    from jax._src import clusters

    return clusters.ClusterEnv.auto_detect_unset_distributed_params(
        None, None, None, None, method, seconds
    )


def key_value_store() -> Any:
    """Returns the coordinator's store, to which ``jax.distributed.initialize`` connected; None in a single process."""
    from jax._src import distributed

    return cast(Any, distributed.global_state.client)
