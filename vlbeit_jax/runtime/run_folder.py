"""What a run writes to its folder besides checkpoints: lock, configuration and metrics."""

import fcntl
import json
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from vlbeit_jax.config.parse import flat, to_dict
from vlbeit_jax.errors import UsageError
from vlbeit_jax.tasks import Config
from vlbeit_jax.training.saved_run import CONFIG_FILE, METRICS_FILE

LOCK_FILE = ".lock"


@contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Creates the folder of a new run, or reopens that of an earlier start, and locks it.

    Raises:
      UsageError: the folder cannot be written to, holds something else, or is in use by another
        process.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        has_files = any(path.name != LOCK_FILE for path in folder.iterdir())
        foreign = has_files and not (folder / CONFIG_FILE).is_file()
        lock = None if foreign else (folder / LOCK_FILE).open("w")
    except OSError as error:
        raise UsageError(f"--workdir={folder}: cannot be written to ({error})") from error
    if lock is None:
        raise UsageError(
            f"--workdir={folder}: holds files but no {CONFIG_FILE}, so it is not the folder of a "
            "run; choose another one"
        )
    with lock:  # The system releases the lock however the process ends.
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"--workdir={folder}: another process is training in it; let it finish, or choose "
                "another folder"
            ) from error
        yield


def write_config(folder: pathlib.Path, config: Config) -> None:
    """Writes the whole configuration to the folder, atomically."""
    written = folder / f".{CONFIG_FILE}.tmp"
    written.write_text(json.dumps(to_dict(config), indent=1) + "\n")
    written.replace(folder / CONFIG_FILE)


def config_changes(folder: pathlib.Path, config: Config) -> list[str]:
    """Returns how ``config`` differs from the folder's ``config.json``, a line per field.

    The file is compared as it is, so that one of an older version, with other fields, is fine.

    Raises:
      UsageError: the file is damaged.
    """
    path = folder / CONFIG_FILE
    try:
        saved = flat(json.loads(path.read_text()))
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(
            f"{path} is damaged ({error}); to accept the given configuration, replace its content "
            "by {} and run the command again"
        ) from error
    given = flat(json.loads(json.dumps(to_dict(config))))  # Tuples become lists, as in the file.
    return [
        f"{name}: {_shown(saved, name)} in {CONFIG_FILE}, {_shown(given, name)} now"
        for name in sorted({*saved, *given})
        if _shown(saved, name) != _shown(given, name)
    ]


def _shown(values: dict[str, Any], name: str) -> str:
    return repr(values[name]) if name in values else "no such field"


def read_metrics(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the lines of a run's ``metrics.jsonl``, with NaN for what was not finite.

    If the process was killed while it wrote the last line, that line is left out.
    """
    if not (folder / METRICS_FILE).is_file():
        return []
    *lines, _ = (folder / METRICS_FILE).read_text().split("\n")
    assert all(lines), "blank line in the metrics"
    return [_with_nan(json.loads(line)) for line in lines]


def last_figures(lines: Sequence[Mapping[str, Any]], split: str) -> dict[str, Any]:
    """Returns the newest figures of a split, with their step.

    Evaluators of one step write a line each; their figures are joined.

    Args:
      lines: of ``read_metrics``.
      split: "validation", for example.
    """
    found: dict[str, Any] = {}
    for line in lines:
        if line["split"] == split:
            found = {**found, **line} if line["step"] == found.get("step") else dict(line)
    return found


def append_metrics(folder: pathlib.Path, line: dict[str, Any]) -> None:
    """Adds a line to ``metrics.jsonl``; JSON has no NaN, so what is not finite becomes null."""
    with (folder / METRICS_FILE).open("a") as out:
        out.write(_as_json(line))


def drop_metrics_after(folder: pathlib.Path, step: int) -> None:
    """Removes lines of later steps, which a resumed run takes again."""
    kept = [line for line in read_metrics(folder) if line["step"] <= step]
    rewritten = (folder / METRICS_FILE).with_suffix(".tmp")
    rewritten.write_text("".join(map(_as_json, kept)))
    rewritten.replace(folder / METRICS_FILE)


def _as_json(line: dict[str, Any]) -> str:
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in line.items()
    }
    return json.dumps(finite, allow_nan=False) + "\n"


def _with_nan(line: dict[str, Any]) -> dict[str, Any]:
    return {name: math.nan if value is None else value for name, value in line.items()}
