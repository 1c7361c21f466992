"""The devices of a run: checkpoints record them, and logs and reports say them in words."""

from collections.abc import Mapping
from typing import Any

import jax

from vlbeit_jax.runtime.machine import usable_cores


def devices() -> dict[str, Any]:
    """Returns what the code runs on: kind and number of devices, hosts, and cores of this one."""
    return {
        "kind": jax.devices()[0].device_kind,
        "count": jax.device_count(),
        "hosts": jax.process_count(),
        "cores": usable_cores(),
    }


def in_words(recorded: Mapping[str, Any]) -> str:
    """Returns "CPU, 2 cores", "NVIDIA H100 80GB HBM3" or "8 x TPU v4 on 2 hosts".

    Args:
      recorded: what ``devices`` has returned, here or where a run was trained.
    """
    kind, count, hosts, cores = (recorded[name] for name in ("kind", "count", "hosts", "cores"))
    on = f" on {hosts} hosts" if hosts > 1 else ""
    if kind != "cpu":
        return f"{count} x {kind}{on}" if count > 1 else kind
    has = f"{cores} core{'s' if cores > 1 else ''}"
    # A CPU is one device, unless XLA is told to simulate several.
    if count > hosts:
        return f"{count} simulated devices{on}, CPU, {has}"
    return f"{count} x CPU{on}, {has} each" if hosts > 1 else f"CPU, {has}"
