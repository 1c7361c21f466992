"""Does the parts of a plan, in one process or several, and says how far it is."""

import collections
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vlbeit_jax import progress
from vlbeit_jax.copies import disk_of
from vlbeit_jax.errors import StorageError
from vlbeit_jax.prepare import pool
from vlbeit_jax.prepare.crashed import crashed, note_crash
from vlbeit_jax.prepare.divide import Shard
from vlbeit_jax.prepare.final import Made, make_shard
from vlbeit_jax.prepare.formats.base import BadInput
from vlbeit_jax.prepare.parts import Part
from vlbeit_jax.prepare.strict import MOST_NAMED, UnusableError
from vlbeit_jax.prepare.work_plan import WorkPlan, read_plan
from vlbeit_jax.prepare.write_part import write_part
from vlbeit_jax.storage import no_room

WORTH_PROCESSES = 8  # Files to copy.
# Writes the parts of these numbers, and yields each number with the part or an error.
Engine = Callable[[WorkPlan, Sequence[int], pool.Report], Iterator[tuple[int, Any]]]


@functools.lru_cache(maxsize=1)
def _plan(folder: pathlib.Path) -> WorkPlan:
    return read_plan(folder)


@dataclasses.dataclass(frozen=True)
class _Part:
    """The call that writes a part; a worker reads the plan's file once."""

    folder: pathlib.Path

    def __call__(self, number: int, report: pool.Report) -> Part:
        return write_part(_plan(self.folder), number, report)


@dataclasses.dataclass(frozen=True)
class _Final:
    """The call that writes a shard of the finished set."""

    folder: pathlib.Path

    def __call__(self, shard: Shard, report: pool.Report) -> Made:
        made = make_shard(_plan(self.folder), shard)
        report(shard.count(), {})
        return made


def do_parts(
    plan: WorkPlan,
    numbers: Sequence[int],
    workers: int,
    items: int | None,
    engine: Engine | None = None,
) -> None:
    """Writes the parts that are not finished.

    Args:
      plan: whose file is in its folder.
      numbers: of the parts.
      workers: processes; negative: one for each core.
      items: how many the plan expects in all, if it knows.
      engine: what writes them; None: processes of this machine.

    Raises:
      UnusableError: items that have an ``Item.place`` are wrong; those of all parts are named.
      BadInput: a file is damaged and was not to be skipped.
      UsageError: too many items cannot be used.
      StorageError: there is no room.
    """
    _plan.cache_clear()  # Of another plan that was in this folder.
    finished = plan.all_finished()
    todo = [number for number in numbers if number not in finished]
    if len(todo) < len(numbers):
        progress.say(f"{len(numbers) - len(todo)} of {len(numbers)} parts are finished already")
    faults: dict[int, list[str]] = {}
    engine = engine or _processes(workers)
    with _Shown(plan, len(todo), items if len(todo) == len(plan.units) else None) as shown:
        while todo:
            again = []
            for number, result in engine(plan, todo, shown.report):
                if isinstance(result, pool.CrashedError):
                    _leave_out(plan, number, result)
                    again.append(number)
                elif isinstance(result, UnusableError):
                    faults[number] = result.lines
                    if sum(map(len, faults.values())) >= MOST_NAMED:
                        break
                elif isinstance(result, Exception):
                    raise explained(result, plan) from result
                else:
                    shown.finished()
            todo = again if sum(map(len, faults.values())) < MOST_NAMED else []
    if faults:
        raise UnusableError([line for _, lines in sorted(faults.items()) for line in lines])


def _leave_out(plan: WorkPlan, number: int, crash: pool.CrashedError) -> None:
    """Leaves the input that ended a worker out of its part, which can then be written again.

    Raises:
      BadInput: damaged files are not to be left out, or this one is left out already.
    """
    path = crash.reading or plan.units[number].path
    why = f"a library crashed while it read this file ({crash.how}), so it is probably damaged"
    if not plan.skips_bad_inputs or path in crashed(plan, number):
        raise explained(BadInput(path, why), plan) from crash
    progress.say(f"left out: {path}: {why}")
    note_crash(plan, number, path, why)


def _processes(workers: int) -> Engine:
    """Returns the pool of processes as an engine."""
    return lambda plan, numbers, report: pool.run(
        _Part(plan.folder), numbers, pool.processes(workers, len(numbers)), report
    )


def do_shards(plan: WorkPlan, shards: Sequence[Shard], workers: int) -> list[Made]:
    """Writes the shards of the finished set."""
    made: dict[pathlib.Path, Made] = {}
    copied = sum(not shard.as_it_is for shard in shards)
    # Few files are copied before other processes have begun.
    processes = pool.processes(workers, copied) if copied >= WORTH_PROCESSES else 0
    total = sum(shard.count() for shard in shards)
    with progress.meter("writing shards", "records", total) as meter:
        report = functools.partial(_advance, meter)
        for shard, result in pool.run(_Final(plan.folder), shards, processes, report):
            if isinstance(result, Exception):
                raise explained(result, plan) from result
            made[shard.path] = result
    return [made[shard.path] for shard in shards]


def _advance(
    meter: progress.Meter, items: int, dropped: Mapping[str, int], reading: str = ""
) -> None:
    meter.update(items)


def explained(error: Exception, plan: WorkPlan) -> Exception:
    """Returns the error with what is finished and what to do next."""
    count = len(plan.all_finished())
    kept = f"{count} of {len(plan.units)} parts are finished and stay in {plan.folder}"
    kept = kept if count else "No part is finished yet"
    if why := no_room(error):
        return StorageError(
            f"{disk_of(plan.folder)}: {why}. {kept}. Make room, and run the same command again"
        )
    if isinstance(error, BadInput):
        return BadInput(
            error.path,
            f"{error.why}. {kept}. Replace or mend this file and run the same command again, or "
            "leave such files out with --bad_inputs=skip",
        )
    return error


class _Shown:
    """The progress of all parts: items, rate, drops by reason, and the time that is left."""

    def __init__(self, plan: WorkPlan, parts: int, items: int | None):
        self._parts, self._done, self._began = parts, 0, time.monotonic()
        self._dropped: collections.Counter[str] = collections.Counter()
        self._context = progress.meter("reading", "items", items)
        self._items_known = items is not None

    def __enter__(self) -> "_Shown":
        self._meter = self._context.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._context.__exit__(None, None, None)

    def report(self, items: int, dropped: Mapping[str, int], reading: str = "") -> None:
        """Adds to what was read."""
        self._dropped.update(dropped)
        self._meter.update(items, self._note())

    def finished(self) -> None:
        """Counts a part."""
        self._done += 1
        self._meter.update(0, self._note())

    def _note(self) -> str:
        said = []
        if self._parts > 1:
            said.append(f"{self._done} of {self._parts} parts")
            if self._done and not self._items_known:
                seconds = time.monotonic() - self._began
                left = progress.duration(seconds * (self._parts / self._done - 1))
                said.append(f"about {left} left")
        if self._dropped:
            reasons = ", ".join(f"{name} {n:,}" for name, n in self._dropped.most_common(3))
            said.append(f"dropped {self._dropped.total():,} ({reasons})")
        return "; ".join(said)
