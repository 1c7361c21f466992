"""Writes the parts of a plan with Apache Beam, on other machines too (docs/beam.md).

A worker gets the number of a part and nothing else. It reads the plan from ``OUT.work`` and calls
``write_part``, whose files are the result. So a part may be written twice, and ``OUT`` has to be
on storage that all workers see. Beam is imported only where it is used: few users have it.
"""

import dataclasses
import functools
import importlib.util
import json
import pathlib
import re
import shlex
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import input_path, place
from vlbeit_jax.prepare.formats.base import BadInput
from vlbeit_jax.prepare.parts import whole
from vlbeit_jax.prepare.pool import Report
from vlbeit_jax.prepare.strict import UnusableError
from vlbeit_jax.prepare.work_plan import WorkPlan, read_plan
from vlbeit_jax.prepare.write_part import write_part
from vlbeit_jax.progress import say

FAULTS_FOLDER = "faults"  # What is wrong with parts that another try would not mend.
FAULTS: dict[str, type[UsageError]] = {
    each.__name__: each for each in (UsageError, UnusableError, BadInput)
}
# NFS shows a new file up to a minute late to a client that looked for it before (acdirmax).
PATIENCE, PAUSE = 70.0, 0.5  # Seconds.
SHARED = (
    "Beam's workers need --input and --out on storage that all of them and this machine see under "
    "the same paths, such as NFS or a bucket (docs/beam.md). Without it, use --part_range, or "
    "--workers alone"
)
# How a runner quotes the error of a worker: most give it as text.
QUOTED = re.compile(rf"{UsageError.__name__}: (.*?)(?: \[while running|\n|$)")


@dataclasses.dataclass(frozen=True)
class Beam:
    """Writes parts with a runner of Beam. It can be used in place of the pool of processes.

    Attributes:
      runner: its name, as Beam has it.
      options: of Beam and the runner, as arguments of a command.
    """

    runner: str
    options: tuple[str, ...] = ()

    def __call__(
        self, plan: WorkPlan, numbers: Sequence[int], report: Report
    ) -> Iterator[tuple[int, Any]]:
        """Writes parts, and yields each number with the part or the error when all have ended.

        Raises:
          UsageError: a path is relative, Beam does not take the options, or workers do not see the
            folder.
          RuntimeError: the pipeline failed.
        """
        if not numbers:
            return
        _require_absolute(plan)
        folder = plan.folder.absolute()
        for number in numbers:
            _fault_file(folder, number).unlink(missing_ok=True)
        (folder / FAULTS_FOLDER).mkdir(exist_ok=True)
        token = uuid.uuid4().hex
        say(
            f"{self.runner} writes {len(numbers)} of {len(plan.units)} parts; a finished one has a "
            f"file NUMBER.json in {plan.parts_folder}"
        )
        with whole(_sign(folder, token)) as path:
            path.touch()
        try:
            self._run(numbers, str(folder), token)
        finally:
            _sign(folder, token).unlink(missing_ok=True)
        for number in numbers:
            result = _result(plan, folder, number)
            if not isinstance(result, Exception):
                report(result.seen, result.dropped)
            yield number, result

    def _run(self, numbers: Sequence[int], folder: str, token: str) -> None:
        import apache_beam as beam  # pyright: ignore[reportMissingImports]
        from apache_beam.options.pipeline_options import (  # pyright: ignore[reportMissingImports]
            PipelineOptions,
        )

        options = PipelineOptions(list(self.options), runner=self.runner)
        try:
            pipeline = beam.Pipeline(options=options)
        except ValueError as error:  # Beam's check of what was given.
            raise UsageError(f"--runner={self.runner}, --beam_options: {error}") from error
        _ = (
            pipeline
            | "Number" >> beam.Create(list(numbers))
            | "Spread" >> beam.Reshuffle()
            | "Write" >> beam.Map(write_on_worker, folder, token)
        )
        try:
            state = pipeline.run().wait_until_finish()
        except Exception as error:
            if quoted := QUOTED.search(f"{type(error).__name__}: {error}"):
                raise UsageError(quoted[1]) from error
            if isinstance(error, ImportError):  # Such as of the libraries for Dataflow.
                raise UsageError(f"--runner={self.runner}: {error}") from error
            raise
        if str(state) != "DONE":
            raise UsageError(
                f"the pipeline of {self.runner} ended as {state}; its log says why. Finished parts "
                "are kept: run the same command again"
            )


def engine(runner: str, options: str) -> Beam | None:
    """Returns what writes the parts; None: the pool of processes.

    Args:
      runner: name of a runner; empty: the pool.
      options: for Beam, in the syntax of a shell.

    Raises:
      UsageError: Beam is not installed, or there are options without a runner.
    """
    if not runner:
        if options:
            raise UsageError("--beam_options needs --runner, such as --runner=DataflowRunner")
        return None
    if importlib.util.find_spec("apache_beam") is None:
        raise UsageError(
            f"--runner={runner} needs Apache Beam, which is not installed here. It needs older "
            "releases of some libraries, so give it an environment of its own: "
            "VENV=.venv-beam launch/install.sh beam"
        )
    return Beam(runner, tuple(shlex.split(options)))


def write_on_worker(number: int, folder: str, token: str) -> int:
    """Writes a part; runs on a worker.

    What is wrong with the data is written to a file for the machine that asked, because a new try
    would end in the same way. Any other error is raised, so that Beam tries again.

    Args:
      number: of the part.
      folder: of the plan.
      token: of the file that shows that the folder is the one that is meant.

    Returns:
      The number.

    Raises:
      UsageError: this worker does not see the folder.
    """
    plan = _plan(place(folder), token)
    try:
        _require_inputs(plan, number)
        write_part(plan, number, _count)
    except UsageError as error:
        with whole(_fault_file(plan.folder, number)) as path:
            kind = type(error) if type(error) in FAULTS.values() else UsageError
            arguments = error.__reduce__()[1] if kind is type(error) else (str(error),)
            path.write_text(json.dumps({"kind": kind.__name__, "arguments": arguments}))
    return number


def _count(items: int, dropped: Mapping[str, int], reading: str = "") -> None:
    """Adds to the counters that runners show of a pipeline."""
    from apache_beam.metrics import Metrics  # pyright: ignore[reportMissingImports]

    Metrics.counter("prepare", "items").inc(items)
    for reason, count in dropped.items():
        Metrics.counter("prepare", f"dropped_{reason}").inc(count)


@functools.lru_cache(maxsize=1)
def _plan(folder: pathlib.Path, token: str) -> WorkPlan:
    """Reads the plan, once for each pipeline."""
    if not _appears(_sign(folder, token).is_file):
        raise UsageError(f"worker {socket.gethostname()} does not see {folder}. {SHARED}")
    return read_plan(folder)


def _require_inputs(plan: WorkPlan, number: int) -> None:
    """Checks that a worker sees what it is to read.

    Otherwise --bad_inputs=skip would leave out all inputs of such a worker.
    """
    sizes = {plan.units[number].path: None}
    sizes |= {path: size for path, size, _ in plan.files[number]}
    for name, size in sizes.items():
        path = input_path(name)
        if not path.exists() or (size is not None and path.stat().st_size != size):
            raise UsageError(
                f"worker {socket.gethostname()} does not see {path} as it was planned. {SHARED}"
            )


def _require_absolute(plan: WorkPlan) -> None:
    """Checks that paths mean the same in whatever folder a worker runs."""
    request = plan.request
    inputs = [unit.path for unit in plan.units]
    named = {
        "--input": inputs,
        "--images": [request.options.get("images")],
        "--text_tokenizer": [request.text_tokenizer],
        "--sentencepiece": [request.options.get("sentencepiece")],
    }
    for flag, paths in named.items():
        for path in paths:
            if path and not input_path(path).is_absolute():
                raise UsageError(
                    f"{flag}: {path} is a relative path, but Beam's workers run in folders of "
                    f"their own; give the absolute path, {pathlib.Path(path).absolute()}"
                )


def _result(plan: WorkPlan, folder: pathlib.Path, number: int) -> Any:
    """Returns a part that was written, or the error."""
    fault = _fault_file(folder, number)
    if _appears(lambda: plan.finished(number) is not None or fault.is_file()):
        return plan.finished(number) or _read_fault(fault)
    return UsageError(
        f"a worker has written part {number}, but {plan.parts_folder} has none. {SHARED}"
    )


def _read_fault(path: pathlib.Path) -> UsageError:
    fault = json.loads(path.read_text())
    return FAULTS[fault["kind"]](*fault["arguments"])


def _appears(appeared: Callable[[], bool]) -> bool:
    """Returns whether something is there, now or within ``PATIENCE`` seconds."""
    until = time.monotonic() + PATIENCE
    while not appeared():
        if time.monotonic() > until:
            return False
        time.sleep(PAUSE)
    return True


def _sign(folder: pathlib.Path, token: str) -> pathlib.Path:
    return folder / f"visible-{token}"


def _fault_file(folder: pathlib.Path, number: int) -> pathlib.Path:
    return folder / FAULTS_FOLDER / f"{number:05d}.json"
