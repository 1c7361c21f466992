"""Restarts a command with glibc tunables that give XLA's CPU backend huge pages.

XLA allocates the buffers of a step anew in every step. They are so large that glibc maps and unmaps
them each time, and the kernel provides them page by page: 98,000 pages of 4 kB per step at the size
of ``configs/sample.py``. If the kernel gives huge pages only to programs that ask for them
(``madvise``, the default of Ubuntu and of many images), ``hugetlb=1`` asks for them. The thresholds
place buffers below 8 GiB side by side, so that buffers smaller than a huge page share one. With the
thresholds a step has 600 to 700 page faults, without them 2,900.

glibc reads tunables before the program begins. So a command that was started without them replaces
itself once, by ``exec``. Process id, arguments, open files and exit code stay the same.
``docs/scale.md`` has more measurements.
"""

import os
import pathlib
import sys
from collections.abc import Mapping

TUNABLES = "GLIBC_TUNABLES"
SETTING = (
    "glibc.malloc.hugetlb=1"
    ":glibc.malloc.mmap_threshold=8589934592"
    ":glibc.malloc.trim_threshold=17179869184"
)
# Set before the exec, so that there is no second one if something removes the tunable.
MARK = "VLBEIT_JAX_HUGE_PAGES"
THP = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
OLDEST_GLIBC = (2, 35)  # The first release with hugetlb.
OWN_PACKAGES = ("vlbeit_jax", "tools")  # Of commands that are restarted.


def use_huge_pages() -> None:
    """Restarts this command with huge pages if that is possible and has an effect; else returns.

    Call it first, before the command reads or writes anything. It does nothing in programs other
    than ``python -m vlbeit_jax.COMMAND`` and the repository's ``python -m tools.COMMAND``, and in a
    command that a debugger follows.
    """
    if not _is_own_command() or sys.gettrace() is not None or not sys.executable:
        return
    if _obstacle(os.environ, _glibc(), THP.read_text() if THP.is_file() else ""):
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | added(os.environ))


def added(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables to add to an environment; tunables that are set already stay."""
    before = environment.get(TUNABLES)
    return {TUNABLES: f"{before}:{SETTING}" if before else SETTING, MARK: "1"}


def _obstacle(
    environment: Mapping[str, str], glibc: tuple[int, ...] | None, huge_pages: str
) -> str:
    """Returns why the command is not restarted; "" if it is."""
    own = [name for name in environment if name.startswith("MALLOC_")]
    if "glibc.malloc." in environment.get(TUNABLES, ""):
        own.append(TUNABLES)
    if "malloc" in environment.get("LD_PRELOAD", ""):
        own.append("LD_PRELOAD")
    if own:
        return f"the allocator is set up already: {', '.join(own)}"
    if MARK in environment:
        return "the command has been restarted already"
    if glibc is None or glibc < OLDEST_GLIBC:
        return "the C library is not glibc 2.35 or newer"
    if "[madvise]" not in huge_pages:
        return "the kernel gives huge pages to all or to none"
    return ""


def _is_own_command() -> bool:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec is not None and spec.name.partition(".")[0] in OWN_PACKAGES


def _glibc() -> tuple[int, ...] | None:
    name = "CS_GNU_LIBC_VERSION"
    said = os.confstr(name) if name in getattr(os, "confstr_names", {}) else None
    kind, _, version = (said or "").partition(" ")
    return tuple(int(part) for part in version.split(".")[:2]) if kind == "glibc" else None
