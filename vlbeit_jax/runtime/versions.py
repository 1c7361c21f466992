"""Versions of the code that runs, and its devices; checkpoints record both.

Hosts must agree on the versions.
"""

import hashlib
import importlib.metadata
import os
import pathlib
from typing import Any

import jax

from vlbeit_jax.version import __version__

# The packages that affect results, from the records on disk to the checkpoint.
PACKAGES = (
    "array_record",
    "flax",
    "grain",
    "jax",
    "jaxlib",
    "numpy",
    "opencv-python-headless",
    "optax",
    "orbax-checkpoint",
    "sentencepiece",
)


def versions() -> dict[str, str]:
    """Returns versions of this package, with a hash of its sources, and of ``PACKAGES``."""
    source = hashlib.sha256()
    for path in sorted(pathlib.Path(__file__).parents[1].rglob("*.py")):
        source.update(path.read_bytes())
    found = {"vlbeit_jax": f"{__version__}+{source.hexdigest()[:12]}"}
    return found | {name: importlib.metadata.version(name) for name in PACKAGES}


def devices() -> dict[str, Any]:
    """Returns what the code runs on: kind and number of devices, hosts, and cores of this one."""
    can_ask = hasattr(os, "sched_getaffinity")
    return {
        "kind": jax.devices()[0].device_kind,
        "count": jax.device_count(),
        "hosts": jax.process_count(),
        "cores": len(os.sched_getaffinity(0)) if can_ask else os.cpu_count(),
    }
