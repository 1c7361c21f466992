"""Runs commands in processes of their own that need not import JAX again.

A new Python takes three CPU seconds to import what a command needs, five with PyTorch, and the
tests start more than a hundred commands. So one process imports all that once, and each command is
a fork of it (``multiprocessing``'s fork server). It has run nothing else: no device was looked for,
no flag was defined, and no thread was started. Tests about importing, restarting or several hosts
start a plain Python.
"""

import atexit
import multiprocessing
import os
import pathlib
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping

TOP = pathlib.Path(__file__).parent.parent
# Variables that libraries, Python and the loader read before a command begins.
READ_AT_START = ("GLIBC_", "JAX_", "LD_", "MALLOC_", "MPL", "OMP_", "PYTHON", "TF_")
RESTARTED = {"VLBEIT_JAX_HUGE_PAGES": "1"}  # A fork must not restart itself as a plain Python.


def command(
    module: str,
    *arguments: object,
    environment: Mapping[str, str] | None = None,
    timeout: float = 300,
) -> subprocess.CompletedProcess:
    """Runs ``python -m module`` from the top of the repository.

    Args:
      module: the command.
      arguments: of the command.
      environment: of the process; that of this one by default.
      timeout: seconds.

    Raises:
      subprocess.TimeoutExpired: it takes longer, and was killed.
    """
    environment = dict(os.environ if environment is None else environment)
    line = [sys.executable, "-m", module, *map(str, arguments)]
    if _at_start(environment) != _at_start(os.environ):
        return subprocess.run(
            line, cwd=TOP, env=environment, capture_output=True, text=True, timeout=timeout
        )
    with tempfile.TemporaryDirectory() as folder:
        out, err = (pathlib.Path(folder, name) for name in ("out", "err"))
        process = started(line, environment, out, err)
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(line, timeout, out.read_bytes(), err.read_bytes())
        return subprocess.CompletedProcess(line, process.exitcode, out.read_text(), err.read_text())


def started(
    line: list[str], environment: Mapping[str, str], out: pathlib.Path, err: pathlib.Path
) -> multiprocessing.process.BaseProcess:
    """Starts ``python -m module arguments`` as a fork, and returns it while it runs.

    Args:
      line: the command, as ``subprocess`` takes it.
      environment: of the process; what is read before a command begins is that of this one.
      out: a file for the standard output.
      err: a file for the standard error output.
    """
    process = _forks().Process(
        target=_run, args=(line, {**environment, **RESTARTED}, str(out), str(err))
    )
    process.start()
    return process


def _at_start(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: environment[name] for name in environment if name.startswith(READ_AT_START)}


def _forks() -> multiprocessing.context.ForkServerContext:
    """Returns the context whose server has imported the libraries; the first use starts it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.imported_once"])
    return context


def _run(line: list[str], environment: dict[str, str], out: str, err: str) -> None:
    """Becomes the command; it ends with the command's exit code."""
    for path, number in ((out, 1), (err, 2)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(TOP)
    _, _, module, *arguments = line
    sys.argv = ["", *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        # multiprocessing ends a process without them.
        atexit._run_exitfuncs()
