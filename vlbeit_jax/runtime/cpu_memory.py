"""Huge pages for what XLA's CPU backend allocates: a process gets them from glibc if it was started with tunables.

XLA asks the C library for the buffers of a step anew in every step. They are large, so that glibc maps and unmaps them each
time, and the kernel hands them out page by page: at the size of ``configs/sample.py`` 98,000 pages of 4 kB a step. Where the kernel
leaves huge pages to who asks for them (``madvise``, Ubuntu's default and that of many images), ``hugetlb=1`` asks for them. The
thresholds put buffers below 8 GiB side by side, where those smaller than a huge page share one: 600 to 700 faults a step, and
2,900 without them.

glibc reads tunables before the program begins. So a command that was started without replaces itself once, by ``exec``: process
id, arguments, open files and exit code stay what they were. ``docs/scale.md`` has what else was measured.
"""

import os
import pathlib
import sys
from collections.abc import Mapping

TUNABLES = "GLIBC_TUNABLES"
SETTING = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=8589934592:glibc.malloc.trim_threshold=17179869184"
MARK = "VLBEIT_JAX_HUGE_PAGES"  # Set before the one exec, so that there is no second if something takes the tunable away.
THP = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
OLDEST_GLIBC = (2, 35)  # The first with huge pages.


def use_huge_pages() -> None:
    """Starts this command again with huge pages, where that changes anything and can be done; otherwise returns.

    To be called first of all, when nothing has been read or written. Programs other than
    ``python -m vlbeit_jax.COMMAND`` are left alone, as is one that a debugger or profiler follows.
    """
    if not _is_own_command() or sys.gettrace() is not None or not sys.executable:
        return
    if _obstacle(os.environ, _glibc(), THP.read_text() if THP.is_file() else ""):
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | added(os.environ))


def added(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables to start with, next to tunables that are set already."""
    before = environment.get(TUNABLES)
    return {TUNABLES: f"{before}:{SETTING}" if before else SETTING, MARK: "1"}


def _obstacle(environment: Mapping[str, str], glibc: tuple[int, ...] | None, huge_pages: str) -> str:
    """Why there is nothing to do; "" if there is."""
    own = [name for name in environment if name.startswith("MALLOC_")]
    if "glibc.malloc." in environment.get(TUNABLES, ""):
        own.append(TUNABLES)
    if "malloc" in environment.get("LD_PRELOAD", ""):
        own.append("LD_PRELOAD")
    if own:
        return f"the allocator is set up already: {', '.join(own)}"
    if MARK in environment:
        return "the command was started again already"
    if glibc is None or glibc < OLDEST_GLIBC:
        return "the C library is not glibc 2.35 or newer"
    if "[madvise]" not in huge_pages:
        return "the kernel gives huge pages to all or to none"
    return ""


def _is_own_command() -> bool:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec is not None and spec.name.partition(".")[0] == "vlbeit_jax"


def _glibc() -> tuple[int, ...] | None:
    name = "CS_GNU_LIBC_VERSION"
    said = os.confstr(name) if name in getattr(os, "confstr_names", {}) else None
    kind, _, version = (said or "").partition(" ")
    return tuple(int(part) for part in version.split(".")[:2]) if kind == "glibc" else None
