"""The engine: a table of rules read in both directions, checked to be total before anything is converted."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from vlbeit_jax.convert.layouts import SAME, Layout
from vlbeit_jax.errors import UsageError

Shape = tuple[int, ...]


@runtime_checkable
class Tensors(Protocol):
    """Named arrays that are read one at a time."""

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """Every name with its shape."""
        ...

    def __getitem__(self, name: str, /) -> np.ndarray:
        """One array."""
        ...


class TensorFile(Tensors, Protocol):
    """Tensors as a file holds them, with what its writer noted beside them."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """Notes by name; none in most files."""
        ...


class Rule(NamedTuple):
    """Arrays of ours, tensors of theirs, and how the ones lie in the others."""

    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    layout: Layout


class Written(NamedTuple):
    """A tensor of theirs that is going to be written: its header, and a function that reads it."""

    name: str
    shape: Shape
    dtype: np.dtype
    read: Callable[[], np.ndarray]


def rule(ours: str, theirs: str, layout: Layout = SAME) -> Rule:
    """A rule of one line; several names are separated by blanks."""
    return Rule(tuple(ours.split()), tuple(theirs.split()), layout)


@dataclasses.dataclass(frozen=True)
class Table:
    """What a format can say of a model.

    Attributes:
      rules: the bijections.
      left_out: our names that the format has no place for, with the reason; on import they stay as they are.
      constant: their tensors that carry nothing of ours, as they have to be written; ignored on import.
      ignored: their names that may be there on import and say nothing, with the reason.
    """

    rules: list[Rule]
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    constant: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    ignored: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Changed:
    """Tensors of which some are computed from others when they are asked for: folds that leave the network's output as it is."""

    def __init__(self, base: Tensors, changes: Mapping[str, Callable[[Tensors], np.ndarray]]):
        """``changes`` gives the new value of a name out of the old ones."""
        self._base, self._changes = base, changes
        self.shapes = base.shapes

    def __getitem__(self, name: str) -> np.ndarray:
        """The changed array, or the old one."""
        return self._changes[name](self._base) if name in self._changes else self._base[name]


def check_ours(table: Table, shapes: Mapping[str, Shape]) -> None:
    """Raises unless every array of ours is in exactly one rule or left out by name, and every rule's arrays exist."""
    used = [name for each in table.rules for name in each.ours] + list(table.left_out)
    _complain(
        {
            "parameters without a rule": sorted(set(shapes) - set(used)),
            "rules for parameters that do not exist": sorted(set(used) - set(shapes)),
            "parameters in two rules": sorted({name for name in used if used.count(name) > 1}),
        }
    )


def exported(table: Table, leaves: Tensors) -> Iterator[Written]:
    """Every tensor of theirs in the table's order."""
    check_ours(table, leaves.shapes)
    for each in table.rules:
        blank = each.layout.there(
            *(np.zeros(leaves.shapes[name], np.float32) for name in each.ours)
        )  # Pages that nobody touches.
        read = _Once(
            lambda each=each: each.layout.there(*(leaves[name] for name in each.ours)),
            len(each.theirs),
        )
        for place, (name, shape) in enumerate(zip(each.theirs, blank, strict=True)):
            yield Written(
                name, shape.shape, shape.dtype, lambda read=read, place=place: read(place)
            )
    for name, value in table.constant.items():
        yield Written(name, value.shape, value.dtype, lambda value=value: value)


class _Once:
    """The results of one rule, read when the first is asked for and forgotten after the last."""

    def __init__(self, read: Callable[[], tuple[np.ndarray, ...]], count: int):
        self._read, self._left, self._found = read, count, None

    def __call__(self, place: int) -> np.ndarray:
        self._found = self._read() if self._found is None else self._found
        found, self._left = self._found[place], self._left - 1
        if not self._left:
            self._found = None
        return found


@dataclasses.dataclass
class Report:
    """What became of every tensor of an import; ``fresh`` are our parameters that the file does not hold."""

    matched: list[str]
    fresh: dict[str, str]
    dropped: dict[str, str]

    def __str__(self) -> str:
        """One line a tensor."""
        lines = [f"matched  {name}" for name in self.matched]
        lines += [f"fresh    {name}: {why}" for name, why in self.fresh.items()]
        return "\n".join(lines + [f"dropped  {name}: {why}" for name, why in self.dropped.items()])


def imported(
    table: Table, theirs: Tensors, shapes: Mapping[str, Shape]
) -> tuple[Iterator[tuple[str, np.ndarray]], Report]:
    """Our arrays out of their tensors, one rule at a time, and what became of each name.

    Raises:
      UsageError: a tensor is missing, one has no use, or one has another shape; all of them are listed.
    """
    check_ours(table, shapes)
    known = (
        {name for each in table.rules for name in each.theirs}
        | set(table.constant)
        | set(table.ignored)
    )
    wanted = {
        each.name: each.shape
        for each in exported(table, _Blank(shapes))
        if each.name not in table.constant
    }
    _complain(
        {
            "tensors that are missing": sorted(set(wanted) - set(theirs.shapes)),
            "tensors that nothing uses": sorted(set(theirs.shapes) - known),
            "tensors of another shape": [
                f"{name} is {list(theirs.shapes[name])}, not {list(shape)}"
                for name, shape in wanted.items()
                if name in theirs.shapes and tuple(theirs.shapes[name]) != shape
            ],
        }
    )

    def arrays() -> Iterator[tuple[str, np.ndarray]]:
        for each in table.rules:
            yield from zip(
                each.ours, each.layout.back(*(theirs[name] for name in each.theirs)), strict=True
            )

    dropped = {
        name: table.ignored.get(name, "carries nothing")
        for name in theirs.shapes
        if name not in wanted
    }
    return arrays(), Report(sorted(wanted), dict(table.left_out), dropped)


class _Blank:
    def __init__(self, shapes: Mapping[str, Shape]):
        self.shapes = shapes

    def __getitem__(self, name: str) -> np.ndarray:
        return np.zeros(self.shapes[name], np.float32)


def _complain(problems: Mapping[str, list[str]]) -> None:
    found = [f"{what}: {', '.join(names)}" for what, names in problems.items() if names]
    if found:
        raise UsageError("the weights do not fit the model:\n  " + "\n  ".join(found))
