"""Which steps in a folder of checkpoints are complete."""

import json
import pathlib

from vlbeit_jax.places import remove_tree, renames_folders

UNFINISHED = "*.orbax-checkpoint-tmp*"  # What Orbax calls a step that it has not saved yet.
# Where folders cannot be renamed, it adds this file to a step last. A step that was copied from a
# disk may lack it, but says in another file since when it is complete.
COMMITTED, METADATA, COMPLETE_SINCE = (
    "commit_success.txt",
    "_CHECKPOINT_METADATA",
    "commit_timestamp_nsecs",
)


def complete_steps(folder: pathlib.Path) -> list[int]:
    """Returns the complete steps in a folder, oldest first."""
    return sorted(int(step.name) for step in _steps(folder) if _is_complete(step))


def remove_unfinished(folder: pathlib.Path) -> None:
    """Removes what an interrupted save has left; Orbax then takes every other step for complete."""
    for unfinished in folder.glob(UNFINISHED):
        remove_tree(unfinished)
    for step in _steps(folder) if not renames_folders(folder) else ():
        if not _is_complete(step):
            remove_tree(step)
        elif not (step / COMMITTED).is_file():
            (step / COMMITTED).write_text("copied")


def _steps(folder: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in folder.iterdir() if path.name.isdecimal()]


def _is_complete(step: pathlib.Path) -> bool:
    if renames_folders(step) or (step / COMMITTED).is_file():
        return True
    try:
        return bool(json.loads((step / METADATA).read_text()).get(COMPLETE_SINCE))
    except (FileNotFoundError, ValueError):
        return False
