"""What a model card tells about data: the sets that a run was trained on."""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from vlbeit_jax.data.identity import KEYS, TRAIN
from vlbeit_jax.data.source import SAMPLE_FOLDER, SAMPLE_PREFIX, PreparedSet, open_set
from vlbeit_jax.data.splits import SEEN_FOLDER, STARTED_FROM
from vlbeit_jax.errors import UsageError
from vlbeit_jax.places import fetched, place
from vlbeit_jax.tasks.runs import read_config
from vlbeit_jax.training.checkpoint import Checkpointer
from vlbeit_jax.training.saved_run import CHECKPOINTS, START_FILE

HEADER = "| set | holds | from | licence | training records | held out | fingerprint |"


def data_section(folder: pathlib.Path, config: Any, step: int) -> list[str]:
    """Returns the lines that say what a run, and what it started from, was trained on.

    Sets are told from their descriptions. One that is not there any more, or holds other records
    by now, is named by its fingerprint alone.

    Args:
      folder: of the run.
      config: of the run.
      step: of the checkpoint.
    """
    if imported := imported_from(folder, step):
        return [
            f"Imported from `{imported}`. The file does not say what it was trained on, so nothing "
            "is known here about its data and their licences."
        ]
    seen = _description(folder, step).get("trained_on", [])
    lines = _trained_on(folder, config, seen, SEEN_FOLDER)
    if (folder / START_FILE).is_file():
        start = json.loads((folder / START_FILE).read_text())
        lines += ["", *_start(folder, start)]
    return lines


def imported_from(folder: pathlib.Path, step: int) -> str | None:
    """Returns the file that a checkpoint was imported from; None if it was trained here."""
    return _description(folder, step).get("imported_from")


def _description(folder: pathlib.Path, step: int) -> dict[str, Any]:
    with contextlib.closing(Checkpointer(folder / CHECKPOINTS, read_only=True)) as checkpointer:
        return checkpointer.describe(step)


def _start(folder: pathlib.Path, start: dict[str, Any]) -> list[str]:
    """Returns what is known about the data of the weights that a run started from."""
    started = place(start["from"])
    title = f"It started from the weights of `{started.name}` at step {start['step']:,}"
    if imported := start["imported_from"]:
        return [
            f"{title}, an import of `{imported}`. What that file was trained on is not known here."
        ]
    try:
        config = read_config(started)
    except UsageError:  # The run may have been removed since.
        config = None
    told = _trained_on(folder, config, start["trained_on"], STARTED_FROM)
    return [f"{title}, which were trained on:", "", *told]


def _trained_on(
    folder: pathlib.Path, config: Any, fingerprints: Sequence[str], seen: str
) -> list[str]:
    """Returns a table of sets, and how many pictures and texts there are in all."""
    if not fingerprints:
        return ["Nothing is known about the data."]
    sets = {each.fingerprint: each for each in _candidates(config)}
    rows = [_row(key, sets.get(key)) for key in fingerprints]
    lines = [HEADER, "|---" * HEADER.count("|", 1) + "|", *rows]
    counts = {what: _count(folder / seen / f"{what}.npy") for what in KEYS}
    held = " and ".join(f"{number:,} different {what}" for what, number in counts.items() if number)
    return [*lines, "", f"Their training parts hold {held}."] if held else lines


def _candidates(config: Any) -> Iterator[PreparedSet]:
    """Yields the sets that a configuration names, and those in the package, if they are there."""
    packaged = [f"{SAMPLE_PREFIX}{path.name}" for path in sorted(SAMPLE_FOLDER.iterdir())]
    for each in [*packaged, *_sources(config)]:
        # A set that cannot be opened is told by its fingerprint.
        with contextlib.suppress(UsageError):
            yield open_set(each)


def _sources(config: Any) -> Iterable[str]:
    if config is None:
        return []
    sections = [getattr(config.task, field.name) for field in dataclasses.fields(config.task)]
    return [place for section in sections for place in getattr(section, "sources", ())]


def _row(fingerprint: str, prepared: PreparedSet | None) -> str:
    if prepared is None:
        return f"| not here any more | unknown | unknown | unknown | | | `{fingerprint}` |"
    packaged = prepared.folder.parent == SAMPLE_FOLDER
    held_out = sum(count for split, count in prepared.meta["counts"].items() if split != TRAIN)
    cells = [
        f"`{SAMPLE_PREFIX if packaged else ''}{prepared.folder.name}`",
        str(prepared.kind).replace("_", " "),
        prepared.meta.get("source") or "not told",
        prepared.meta.get("licence") or "**not told**",
        f"{prepared.count(TRAIN):,}",
        f"{held_out:,}",
        f"`{fingerprint}`",
    ]
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _count(path: pathlib.Path) -> int:
    """Returns how many keys a file of ``data.splits.write_seen`` holds; 0 without the file."""
    return len(np.load(fetched(path), mmap_mode="r")) if path.is_file() else 0
