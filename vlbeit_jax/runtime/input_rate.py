"""How fast something makes rows, in wall-clock time and in CPU time of all processes."""

import multiprocessing
import os
import pathlib
import time
from collections.abc import Callable
from typing import NamedTuple

MEGABYTE = 1e6
_TICKS = os.sysconf("SC_CLK_TCK")
_USER, _SYSTEM = 11, 12  # Places of both times in /proc/PID/stat after the name (proc(5)).


class Rate(NamedTuple):
    """What was measured.

    Attributes:
      rows: number made.
      wall: seconds.
      processor: seconds of CPU time of this process and its children.
      waited: seconds in which the rows were waited for.
    """

    rows: int
    wall: float
    processor: float
    waited: float

    @property
    def per_core(self) -> float:
        """Rows per second of CPU time."""
        return self.rows / self.processor

    def described(self, row_bytes: float, tokens: int = 0) -> dict[str, float]:
        """Returns the figures for JSON.

        Args:
          row_bytes: read per row; 0: not told.
          tokens: of a row; 0: not told.
        """
        per_wall = self.rows / self.wall
        figures = {
            "per_core_second": round(self.per_core, 1),
            "per_wall_second": round(per_wall, 1),
            "cores_used": round(self.processor / self.wall, 2),
            "wait_share": round(self.waited / self.wall, 3),
        }
        if row_bytes:
            figures["megabytes_per_wall_second"] = round(per_wall * row_bytes / MEGABYTE, 2)
        if tokens:
            figures["tokens_per_wall_second"] = round(per_wall * tokens)
        return figures


def rate(work: Callable[[], int], seconds: float, step_seconds: float = 0.0) -> Rate:
    """Measures some work.

    Args:
      work: makes some rows and returns their number.
      seconds: length of the measurement.
      step_seconds: sleep after each piece of work, in which a device would compute a step.
    """
    rows, waited, began, processor = 0, 0.0, time.perf_counter(), processor_seconds()
    while time.perf_counter() - began < seconds:
        asked = time.perf_counter()
        rows += work()
        waited += time.perf_counter() - asked
        if step_seconds:
            time.sleep(step_seconds)
    wall = time.perf_counter() - began
    return Rate(rows, wall, processor_seconds() - processor, waited)


def processor_seconds() -> float:
    """Returns the CPU time of this process and of its running children.

    ``resource.getrusage`` would count a child only once it has ended.
    """
    children = (child.pid for child in multiprocessing.active_children())
    return time.process_time() + sum(_ticks_of(pid) for pid in children if pid) / _TICKS


def _ticks_of(pid: int) -> int:
    """Returns the CPU time of a process, in ticks; 0 if it has just ended."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # The name, in brackets, may hold spaces.
    fields = stat.rpartition(")")[2].split()
    return int(fields[_USER]) + int(fields[_SYSTEM])
