"""Runs the project's commands for tools/gpu_check.py, each until the check's time ends.

It needs only the standard library, so that a command that cannot start does not end the check.
"""

import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

JOINT = "--config.task.schedule=image+text+pair"
STREAMS = ("image", "text", "pair")
# A rehearsal runs the same code at these sizes, in seconds on a CPU.
TINY = [
    "--config.task.model.depth=1",
    "--config.task.model.fused_layers=1",
    "--config.task.model.vocabulary=1000",
    "--config.task.model.width=64",
    "--config.task.model.heads=1",
    "--config.task.model.ffn_width=128",
    "--config.task.tokenizer_model.encoder_depth=1",
    "--config.task.tokenizer_model.width=64",
    "--config.task.tokenizer_model.heads=1",
    "--config.task.model.codes=256",
    "--config.task.tokenizer_model.codes=256",
]
CURRENT: list[subprocess.Popen] = []  # The command that runs now; it ends with this program.


@dataclasses.dataclass(frozen=True)
class Stop:
    """When a command gets a Ctrl-C: so many seconds after ``file`` has its first line.

    A run makes its metrics.jsonl before it compiles, which may take longer than these seconds.
    """

    file: pathlib.Path
    seconds: float


@dataclasses.dataclass
class Check:
    """What all stages share.

    Attributes:
      out: folder of the results.
      deadline: when the check ends, by ``time.monotonic``.
      rehearse: whether to run on the CPU with tiny sizes.
      memory: of the device, in GiB.
    """

    out: pathlib.Path
    deadline: float
    rehearse: bool
    memory: float

    def left(self) -> float:
        """Seconds until the end."""
        return self.deadline - time.monotonic()

    def run(
        self, name: str, command: Sequence[str], stop: Stop | None = None, **environment: str
    ) -> tuple[int, str]:
        """Runs ``python -m COMMAND`` with its output in NAME.log.

        Args:
          name: of the log.
          command: module and arguments.
          stop: when the command gets a Ctrl-C; None: it runs to its end.
          **environment: variables that are added to those of this process.

        Returns:
          The exit code (124: time ended) and the output.
        """
        log = self.out / f"{name}.log"
        variables = {
            # JAX takes 75% of the memory by default. The largest batch needs more.
            "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.93",
            **os.environ,
            **environment,
            "XDG_CACHE_HOME": str(self.out.resolve() / "cache"),
        }
        if self.rehearse:
            variables["JAX_PLATFORMS"] = "cpu"
        with log.open("w") as file:
            file.write(f"$ python -m {' '.join(command)}\n")
            file.flush()
            process = subprocess.Popen(
                # A shell's background jobs ignore Ctrl-C, and so would their children.
                ["env", "--default-signal=INT", sys.executable, "-m", *command],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=variables,
                start_new_session=True,
            )
            CURRENT[:] = [process]
            if stop:
                self._interrupt(process, stop)
            _wait(process, max(self.left(), 0))
            timed_out = process.poll() is None
            end(process)
        return 124 if timed_out else process.returncode, log.read_text()

    def _interrupt(self, process: subprocess.Popen, stop: Stop) -> None:
        """Sends Ctrl-C at the time that ``stop`` says, and waits for the end."""
        while not _has_a_line(stop.file) and self.left() > 0 and process.poll() is None:
            time.sleep(0.2)
        _wait(process, min(stop.seconds, max(self.left(), 0)))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGINT)
            _wait(process, min(30, max(self.left(), 0)))

    def benchmark(
        self, name: str, config: str, batch: int, *more: str, module: str = "vlbeit_jax.benchmark"
    ) -> dict[str, Any]:
        """Returns what the benchmark in ``module`` measured, with ``error`` if it failed."""
        result = self.out / f"{name}.json"
        result.unlink(missing_ok=True)  # It may be of a larger batch that did not fit.
        command = [
            module,
            f"--config={config}",
            JOINT,
            "--config.task.model.matmul=bfloat16",
        ]
        command += ["--config.task.tokenizer_model.matmul=bfloat16", "--config.mesh.fsdp=1"]
        command += [f"--config.task.{stream}.batch_size={batch}" for stream in STREAMS]
        command += [
            *(TINY if self.rehearse else []),
            f"--steps={2 if self.rehearse else 10}",
            "--warmup=2",
            f"--json={result}",
            *more,
        ]
        code, text = self.run(name, command)
        found = json.loads(result.read_text()) if result.is_file() else {}
        return {
            **found,
            "batch": batch,
            "command": f"python -m {' '.join(command)}",
            **failure(code, text),
        }

    def largest(self, name: str, config: str, *more: str) -> dict[str, Any]:
        """Runs the benchmark at the largest batch that fits.

        Starts with the batch that a formula gives, and halves it until it fits.
        """
        batch = 2
        if not self.rehearse:
            code, text = self.run(
                f"{name}_batch",
                ["tools.largest_batch", config, str(self.memory)],
                JAX_PLATFORMS="cpu",
            )
            if code:
                return failure(code, text)
            batch = int(text.split()[-1])
        while True:
            found = self.benchmark(name, config, batch, *more)
            if batch == 1 or "RESOURCE_EXHAUSTED" not in found.get("error", ""):
                return found
            batch //= 2


def _has_a_line(file: pathlib.Path) -> bool:
    return file.is_file() and b"\n" in file.read_bytes()


def _wait(process: subprocess.Popen, seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return  # ``end`` follows.


def end(process: subprocess.Popen) -> None:
    """Ends a command and all that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        process.wait()


def failure(code: int, text: str) -> dict[str, Any]:
    """Returns ``error`` with the reason in a command's output; nothing if the command succeeded."""
    if code == 0:
        return {}
    if code == 124:
        return {"error": "time ended"}
    lines = [
        line
        for line in text.splitlines()
        if re.search(r"RESOURCE_EXHAUSTED|Error\b|error:|out of memory", line)
    ]
    return {"error": f"exit code {code}: {(lines or text.splitlines()[-1:] or [''])[-1][:300]}"}
