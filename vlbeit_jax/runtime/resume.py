"""Finds the step that a run goes on from, and moves damaged steps aside."""

import functools
import pathlib
from typing import NamedTuple

import jax

from vlbeit_jax.errors import Damaged, UsageError
from vlbeit_jax.places import renames_folders
from vlbeit_jax.runtime.history import last_saved
from vlbeit_jax.runtime.metrics_file import read_metrics
from vlbeit_jax.runtime.run import Run
from vlbeit_jax.training.checkpoint import Checkpointer, StateReading
from vlbeit_jax.training.saved_run import CHECKPOINTS, DAMAGED, METRICS_FILE
from vlbeit_jax.training.saved_step import SavedStep
from vlbeit_jax.training.state import TrainState


class Resumed(NamedTuple):
    """Where a run goes on.

    Attributes:
      step: steps taken; 0 for a new run.
      state: of that step; None for a new run.
      told: what the user should know: steps that were moved aside, or that have no digests.
    """

    step: int
    state: TrainState | None
    told: tuple[str, ...]


def require_checkpoints(workdir: pathlib.Path) -> None:
    """Checks that a run which has saved steps still has some.

    Raises:
      Damaged: they are gone; the run would start anew and erase its figures.
    """
    folder, lost = workdir / CHECKPOINTS, sorted_steps(workdir / DAMAGED)
    if sorted_steps(folder):
        return
    if lost:
        raise Damaged(
            f"every checkpoint of {workdir} is damaged; they lie in {workdir / DAMAGED} (steps "
            f"{', '.join(map(str, lost))}); put a copy of {CHECKPOINTS}/ in its place, or choose "
            "another --workdir to start anew"
        )
    taken = max((line["step"] for line in read_metrics(workdir)), default=0)
    saved = last_saved(workdir)
    # On a disk the folder is made before the first step. In a bucket it comes with the first save,
    # which a run that was killed may not have reached.
    is_gone = renames_folders(folder) and not folder.is_dir()
    if saved or (taken and is_gone):
        fact = f"the run has saved step {saved}" if saved else f"{METRICS_FILE} is at step {taken}"
        state = "is not a folder" if folder.exists() else "is missing"
        raise Damaged(
            f"{folder} {'has no step' if folder.is_dir() else state}, but {fact}; the run "
            f"would start at step 0 and erase its figures; put {CHECKPOINTS}/ back, or choose "
            "another --workdir to start anew"
        )


def resume(run: Run, checkpointer: Checkpointer, abstract: TrainState) -> Resumed:
    """Returns the newest state that can be restored, and moves every newer step aside.

    Raises:
      Damaged: there are steps, but none can be restored.
      UsageError: the newest step was made from something else, or is beyond the last step.
    """
    told, moved = [], set()
    while True:
        # A host may see a step for a while that another one has moved: NFS keeps lists of folders.
        newest = max((each for each in checkpointer.steps() if each not in moved), default=None)
        run.hosts.assert_equal({"newest checkpoint": newest})
        if newest is None:
            run.hosts.on_primary(lambda: require_checkpoints(run.workdir))
            return Resumed(0, None, tuple(told))
        step = checkpointer.step(newest)
        state = restored(run, step, abstract, told)
        if state is not None:
            if not step.has_digests:
                told.append(f"step {newest} has no digest, because an earlier version saved it")
            return Resumed(newest, state, tuple(told))
        run.hosts.on_primary(functools.partial(set_aside, run.workdir, step, told))
        moved.add(newest)


def restored(run: Run, step: SavedStep, abstract: TrainState, told: list[str]) -> TrainState | None:
    """Returns the state of a step; None if it is damaged for any process, which is then told."""
    reading, damage = StateReading(step, abstract), []

    def read() -> None:
        try:
            _require_same_run(run, step)
            reading.read()
        except Damaged as error:
            damage.append(str(error))

    run.hosts.all_or_none(read)
    found = [each for each in run.hosts.gathered(damage) if each]
    if not found:
        try:
            return reading.checked()
        except Damaged as error:
            found = [[str(error)]]
    told.extend(found[0])
    return None


def _require_same_run(run: Run, step: SavedStep) -> None:
    run.check_resumes(step.description.get("must_match", {}))
    steps, taken = run.config.run.steps, int(step.folder.name)
    if taken > steps:
        raise UsageError(
            f"{run.workdir} is already at step {taken}, but run.steps is {steps}; raise run.steps "
            "to continue this run, or choose a new --workdir"
        )


def set_aside(
    workdir: pathlib.Path, step: SavedStep, told: list[str], folder: str = DAMAGED
) -> None:
    """Moves a step into another folder, and adds its new place to what the user is told."""
    place = workdir / folder / step.folder.name
    number = 1
    while place.exists():
        number += 1
        place = workdir / folder / f"{step.folder.name}.{number}"
    place.parent.mkdir(exist_ok=True)
    step.folder.rename(place)
    told.append(f"step {step.folder.name} is moved to {place}")


def sorted_steps(folder: pathlib.Path) -> list[int]:
    """Returns the steps in a folder of checkpoints, or of damaged ones, which may have a suffix."""
    if not folder.is_dir():
        return []
    names = {path.name.partition(".")[0] for path in folder.iterdir() if "-tmp" not in path.name}
    return sorted(int(name) for name in names if name.isdecimal())


def bytes_of(state: TrainState) -> int:
    """Returns the bytes that a saved state takes at most, for its shapes and types."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.saved()))
