"""Runs commands in processes of their own that need not import JAX again.

A new Python takes three CPU seconds to import what a command needs, five with PyTorch, and the
tests start more than a hundred commands. So one process imports all that once, and each command is
a fork of it (``multiprocessing``'s fork server). It has run nothing else: no device was looked for,
no flag was defined, no signal is handled, and no thread was started. Tests about importing or
restarting start a plain Python.
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


class Running:
    """A fork of the server that runs a command."""

    def __init__(self, line: list[str], environment: Mapping[str, str]):
        self._line, self._folder = line, tempfile.TemporaryDirectory()
        out, err = (str(pathlib.Path(self._folder.name, name)) for name in ("out", "err"))
        self._files = pathlib.Path(out), pathlib.Path(err)
        given = (line, dict(environment) | RESTARTED, out, err)
        self._process = _forks().Process(target=_run, args=given)
        self._process.start()

    @property
    def pid(self) -> int:
        """Its number."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def said(self) -> str:
        """What it has written so far: its results, then its messages."""
        return "".join(path.read_text() for path in self._files if path.exists())

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.is_alive()

    def kill(self) -> None:
        """Ends it at once, with SIGKILL."""
        with self._folder:
            self._process.kill()
            self._process.join()

    def ended(self, timeout: float = 300) -> subprocess.CompletedProcess:
        """Waits for its end.

        Raises:
          subprocess.TimeoutExpired: it takes longer, and was killed.
        """
        with self._folder:
            self._process.join(timeout)
            code = self._process.exitcode
            if code is None:
                self._process.kill()
                self._process.join()
                said = (path.read_bytes() for path in self._files)
                raise subprocess.TimeoutExpired(self._line, timeout, *said)
            said = (path.read_text() for path in self._files)
            return subprocess.CompletedProcess(self._line, code, *said)


def begin(*line: object, environment: Mapping[str, str]) -> Running:
    """Starts ``python -m MODULE ...`` or ``python -c PROGRAM ...``, from the top of the repository.

    Args:
      line: what follows ``python``.
      environment: of the process, as this one as far as it is read at the start.
    """
    assert _at_start(environment) == _at_start(os.environ)
    return Running([sys.executable, *map(str, line)], environment)


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
    line = ["-m", module, *map(str, arguments)]
    if _at_start(environment) == _at_start(os.environ):
        return begin(*line, environment=environment).ended(timeout)
    return subprocess.run(
        [sys.executable, *line],
        cwd=TOP,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


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
    _, flag, program, *arguments = line
    sys.argv = [flag if flag == "-c" else "", *arguments]
    try:
        if flag == "-c":
            exec(program, {"__name__": "__main__"})
        else:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
    finally:
        # multiprocessing ends a process without them.
        atexit._run_exitfuncs()
