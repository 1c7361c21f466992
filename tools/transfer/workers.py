"""Carries out the runs of a study side by side, in one process per core.

A network this small hardly keeps two cores busy, because XLA's threads wait for each other. Two
processes with one core each do nearly twice as much as one process with two cores.
"""

import multiprocessing
import os
import pathlib
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import jax

from tools.transfer.fit import Fit, Study
from vlbeit_jax.errors import UsageError
from vlbeit_jax.runtime.compilation_cache import use_compilation_cache

MOST_WORKERS = 8  # Each takes up to 1.3 GB of memory.
SECONDS_WORTH_KEEPING = 0.1  # JAX caches only programs that took longer to compile.


def carry_out(study: Study, workers: int = 0) -> Iterator[tuple[Fit, dict[str, Any]]]:
    """Yields each run with its answers, in the order of ``study.units``.

    Args:
      study: the study. Runs that are finished are not carried out again.
      workers: number of processes; 0 takes one per core, at most ``MOST_WORKERS``.
    """
    cores = sorted(os.sched_getaffinity(0))
    workers = workers or min(len(cores), MOST_WORKERS)
    context = multiprocessing.get_context("spawn")  # JAX's threads do not survive a fork.
    numbers = context.SimpleQueue()
    for number in range(workers):
        numbers.put((number, cores[number % len(cores)]))
    # On a GPU each process would otherwise reserve most of the memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    with (
        # Each process has its own cache: JAX could read a file that another is still writing.
        tempfile.TemporaryDirectory() as compiled,
        ProcessPoolExecutor(
            workers, context, _begin, (numbers, study.folder, pathlib.Path(compiled))
        ) as pool,
    ):
        units = study.units
        try:
            for unit, found in zip(units, pool.map(study.carry_out, units), strict=True):
                yield from zip(unit, found, strict=True)
        except BrokenProcessPool as error:
            raise UsageError(
                f"a process has ended; {study.folder}/worker_*.log says more. If memory was full, "
                "give the command fewer cores, such as taskset --cpu-list 0,1"
            ) from error
        except BaseException:
            # After Ctrl-C the pool would first carry out the units that it has handed out.
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _begin(numbers: Any, folder: pathlib.Path, compiled: pathlib.Path) -> None:
    """Prepares a process: sets its core, log and compilation cache, and ends it with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # The parent gets it too, and ends this process.
    number, core = numbers.get()
    os.sched_setaffinity(0, {core})  # Before JAX counts the cores and starts one thread for each.
    with (folder / f"worker_{number}.log").open("a") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())
    use_compilation_cache(str(compiled / str(number)))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", SECONDS_WORTH_KEEPING)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this process when its parent has been killed; otherwise it would go on training."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker"
    parent.join()
    os._exit(1)
