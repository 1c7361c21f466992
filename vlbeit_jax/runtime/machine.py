"""The machine of a measurement: graphics card, processor, memory, load, versions.

It needs only the standard library, so that a tool can look before JAX takes the device.
"""

import importlib.metadata
import os
import pathlib
import platform
import subprocess
from typing import Any

# The packages that affect speed.
PACKAGES = (
    "jax",
    "jaxlib",
    "jax-cuda13-plugin",
    "jax-cuda12-plugin",
    "libtpu",
    "flax",
    "torch",
    "triton",
    "nvidia-cudnn-cu13",
    "nvidia-cudnn-cu12",
    "numpy",
    "grain",
)
GIBIBYTE = 2**30


def card() -> dict[str, Any]:
    """Name, memory (GiB) and driver of the first GPU, by nvidia-smi; empty if there is none.

    A GPU that shares the memory of its processor has none of its own, and nvidia-smi says "[N/A]".
    """
    query = [
        "nvidia-smi",
        "--query-gpu=name,memory.total,driver_version",
        "--format=csv,noheader,nounits",
    ]
    try:
        said = subprocess.run(query, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    name, mebibytes, driver = (part.strip() for part in said.splitlines()[0].split(","))
    own = {"memory_gib": float(mebibytes) / 1024} if mebibytes.isdecimal() else {}
    return {"card": name, **own, "driver": driver}


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that affect speed."""
    releases = {"python": platform.python_version()}
    installed = {
        each.metadata["Name"].lower(): each.version
        for each in importlib.metadata.distributions()
        if each.metadata["Name"]
    }
    return releases | {name: installed[name] for name in PACKAGES if name in installed}


def usable_cores() -> int:
    """Returns the cores that this process may use."""
    can_ask = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if can_ask else os.cpu_count() or 1


def host() -> dict[str, Any]:
    """Processor, cores that this process may use, memory (GiB), and mean load of five minutes."""
    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "host_memory_gib": round(
            os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIBIBYTE, 1
        ),
        "load_average": round(os.getloadavg()[1], 1),
    }


def _processor() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def peak_resident_bytes() -> int:
    """Returns the most memory that this process had in RAM at once."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes.
    return peak if platform.system() == "Darwin" else peak * 1024
