"""What JAX has and gives no public name; no other file reaches into ``jax._src``, so that a release that moves it is met here.

JAX offers what it finds in a cluster's environment to its own initialisation alone, and the roll call comes before that. Its
key-value store works before any device has been touched; Orbax and others use it in the same way.
"""

from collections.abc import Sequence
from typing import Any, cast

LOGGER_OF_CONNECTING = "jax._src.distributed"


def place_in_cluster(method: str | None, seconds: int) -> tuple[str | None, int | None, int | None, Sequence[int] | None]:
    """What the environment says of this process.

    Args:
      method: JAX's name of the kind of cluster; None takes the first kind that looks present.
      seconds: how long to wait where the environment has to be asked over the network.

    Returns:
      The coordinator's address with its port, the number of processes, which one this is, and its local devices; None each where
      nothing says so.
    """
    from jax._src import clusters

    return clusters.ClusterEnv.auto_detect_unset_distributed_params(None, None, None, None, method, seconds)


def key_value_store() -> Any:
    """The coordinator's store, as ``jax.distributed.initialize`` connected it; None in a single process."""
    from jax._src import distributed

    return cast(Any, distributed.global_state.client)
