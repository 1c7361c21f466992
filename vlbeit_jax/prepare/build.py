"""From a source in some format to a prepared data set: plan, parts, finish."""

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from vlbeit_jax.data.source import META_FILE, PreparedSet, open_sets_once
from vlbeit_jax.errors import UsageError
from vlbeit_jax.folders import is_incomplete, locked, require_absent
from vlbeit_jax.places import remove_tree
from vlbeit_jax.prepare.apart import OtherSets
from vlbeit_jax.prepare.decide import Wishes
from vlbeit_jax.prepare.finish import DONE_FILE, finish
from vlbeit_jax.prepare.held_out import SMALL, FewHeldOutError
from vlbeit_jax.prepare.parts import remove_unfinished
from vlbeit_jax.prepare.planning import Source, planned, require_whole_pictures
from vlbeit_jax.prepare.work import Engine, do_parts, explained
from vlbeit_jax.prepare.work_plan import (
    OTHERS_FOLDER,
    WorkPlan,
    read_plan,
)
from vlbeit_jax.progress import say
from vlbeit_jax.storage import no_room

WISHES = Wishes()


def build_set(
    out: pathlib.Path,
    source: Source,
    wishes: Wishes = WISHES,
    part_range: tuple[int, int] | None = None,
    engine: Engine | None = None,
) -> dict[str, Any]:
    """Prepares what has not been packed.

    Finished parts stay in ``OUT.work`` if the process is stopped, and are not made again.

    Args:
      out: the folder to make.
      source: what is read.
      wishes: what is decided at the end.
      part_range: first part to make, and the one after the last; None: all. If other parts are
        missing then, the set is not finished yet.
      engine: what writes the parts; None: processes of this machine.

    Returns:
      The description that was written; empty if parts are missing.

    Raises:
      UsageError: an input is missing or unreadable, an annotation is wrong, or too many items had
        to be dropped. Nothing is left at ``out``.
      FewHeldOutError: fewer than ``wishes.fewest`` records are held out. Nothing is left at
        ``out``.
    """
    wishes.require_fit(source.kind)
    require_whole_pictures(source.kind, source.limits)
    others = open_sets_once(source.apart_from)
    with locked(out, shared=part_range is not None):
        work = out.with_name(f"{out.name}.work")
        if not (work / DONE_FILE).is_file():
            require_absent(out)
        plan, found, told = planned(work, source, bool(wishes.near_duplicates), others)
        if meta := _finished_before(out, plan):
            return meta
        require_absent(out)
        _open_work(plan, others)
        try:
            for note in found.notes:
                say(note)
            numbers = range(len(plan.units))[slice(*part_range or (None,))]
            do_parts(plan, numbers, wishes.workers, found.items, engine)
            missing = len(plan.units) - len(plan.all_finished())
            if missing:
                say(f"{out} is not complete yet: {missing} of {len(plan.units)} parts are missing")
                return {}
            with locked(out.with_name(f"{out.name}.set")):
                return finish(out, plan, wishes, others, told)
        except BaseException as error:
            _tidy(plan, error, shared=part_range is not None)
            if isinstance(error, OSError | RuntimeError) and no_room(error):
                raise explained(error, plan) from error
            raise


def _finished_before(out: pathlib.Path, plan: WorkPlan) -> dict[str, Any] | None:
    """Returns the description of a set that was complete when its process was stopped."""
    if is_incomplete(out):
        return None
    try:
        done = json.loads((plan.folder / DONE_FILE).read_text())
        meta = json.loads((out / META_FILE).read_text())
    except FileNotFoundError:
        return None
    if done != {"plan_sha256": plan.as_json()["plan_sha256"], "fingerprint": meta["fingerprint"]}:
        return None
    remove_tree(plan.folder)
    return meta


def _open_work(plan: WorkPlan, others: Sequence[PreparedSet]) -> None:
    """Makes the folder of the work, or continues in it."""
    if plan.parts_folder.is_dir():
        remove_unfinished(plan.parts_folder)
        try:
            plan.require_same()
        except UsageError:
            if not _is_larger_share(plan):
                raise
            remove_tree(plan.folder)
    try:
        plan.save()
        if others:
            OtherSets(others).save(plan.folder / OTHERS_FOLDER)
    except OSError as error:
        raise UsageError(f"cannot write beside {plan.folder}: {error}") from error


def _is_larger_share(plan: WorkPlan) -> bool:
    """Whether a small set was being split again with a larger share (``held_out``)."""
    try:
        before = read_plan(plan.folder)
    except (KeyError, TypeError):  # Another version of this program wrote it.
        return False
    request = dataclasses.replace(before.request, validation_share=plan.request.validation_share)
    parts = [part for n in range(len(before.units)) if (part := before.finished(n))]
    small = sum(sum(part.placed.values()) for part in parts) < SMALL
    return small and dataclasses.replace(before, request=request).as_json() == plan.as_json()


def _tidy(plan: WorkPlan, error: BaseException, *, shared: bool) -> None:
    """Removes the folder of the work if nothing in it is of use when the command is given again."""
    finished = bool(plan.all_finished())
    # A fault of the data: the data or the options have to change, and one part is soon made again.
    judged = isinstance(error, ValueError) and not no_room(error.__cause__ or error)
    useless = not finished or isinstance(error, FewHeldOutError)
    if not shared and (useless or (judged and len(plan.units) == 1)):
        remove_tree(plan.folder)
    elif finished:
        say(f"finished parts stay in {plan.folder}; run the same command again to continue")
