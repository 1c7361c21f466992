"""Devices to compile for, without having them."""

from typing import Any

import jax

from vlbeit_jax.errors import UsageError
from vlbeit_jax.plan.topology import Topology


def devices_of(topology: Topology) -> Any:
    """Returns devices to compile for.

    Raises:
      UsageError: the compiler is not installed or does not know the topology, or this process has
        another number of devices.
    """
    if topology.chip is None:
        if jax.device_count() != topology.count:
            raise UsageError(
                f"--topology={topology}: this process has {jax.device_count()} devices"
            )
        return jax.devices()
    from jax.experimental import topologies

    options: dict[str, Any] = (
        {"chip_config_name": "megacore"} if topology.chip.name == "v4" else {}
    )  # One device a chip, not two.
    if topology.count == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    try:
        return topologies.get_topology_desc(
            platform="tpu", topology_name=str(topology), **options
        ).devices
    except (RuntimeError, ValueError, NotImplementedError) as error:
        raise UsageError(
            f"--topology={topology}: {error}; if libtpu is missing: launch/install.sh tpu, or "
            "pip install 'jax[tpu]', on any Linux machine"
        ) from error
