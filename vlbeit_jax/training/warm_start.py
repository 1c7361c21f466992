"""Warm start: a run begins with parameters of another run or of an import.

What each parameter begins with is planned from names and shapes, before any array is read. The plan
is total: each parameter of this model gets one value, and each parameter of the start is used or
dropped. Everything that does not fit is listed in one usage error.
"""

import dataclasses
import enum
import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from vlbeit_jax.errors import UsageError
from vlbeit_jax.shapes import Tree
from vlbeit_jax.training.param_names import leaf_name

Shape = tuple[int, ...]
Adapter = Callable[[np.ndarray, Shape], np.ndarray]


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """Globs over parameter names. What no rule names must match in name and shape.

    "*" stands for any characters, "/" included.

    Attributes:
      fresh: parameters of this model that keep their initial values.
      dropped: parameters of the start that are left out.
      adapt: parameters whose shape may differ, each with an adapter: from the start's array and the
        shape that is needed to the new array. An adapter raises ``UsageError`` for what it cannot
        do. The first glob that matches counts.
      unneeded: parameters of the start that are left out unless this model has them. The start may
        also lack them, because it is of pretraining, of another task, or imported.
      copies: pairs of a parameter of this model, and of the parameter of the start that it is a
        copy of where the start lacks it.
    """

    fresh: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    adapt: tuple[tuple[str, Adapter], ...] = ()
    unneeded: tuple[str, ...] = ()
    copies: tuple[tuple[str, str], ...] = ()

    def is_fresh(self, name: str) -> bool:
        """Whether a parameter of this model keeps its initial values."""
        return _match(name, self.fresh) is not None


class Origin(enum.StrEnum):
    """Where the value of a parameter comes from."""

    SAME = enum.auto()
    ADAPTED = enum.auto()
    COPIED = enum.auto()
    FRESH = enum.auto()


@dataclasses.dataclass(frozen=True)
class Assignment:
    """The value that one parameter of this model gets.

    Attributes:
      name: of the parameter.
      origin: where its value comes from.
      shape: of the parameter.
      source: its shape in the start; None if the start does not have it.
      adapter: for ``Origin.ADAPTED``.
      original: for ``Origin.COPIED``: name of the parameter of the start.
    """

    name: str
    origin: Origin
    shape: Shape
    source: Shape | None
    adapter: Adapter | None = None
    original: str = ""

    @property
    def taken(self) -> str:
        """Name of the parameter of the start that the value comes from; unless it is fresh."""
        return self.original or self.name


def plan_warm_start(
    source: Mapping[str, Shape],
    target: Mapping[str, Shape],
    rules: WarmStart,
    *,
    start: str = "the start",
) -> list[Assignment]:
    """Decides what each parameter begins with.

    Args:
      source: shapes in the start, by name.
      target: shapes in this model, by name.
      rules: what may differ.
      start: how the error message names the start.

    Returns:
      One assignment per parameter of ``target``, in the order of the names.

    Raises:
      UsageError: lists every parameter that is missing in the start, left over in it or of another
        shape, what adapters refuse, and rules that match nothing.
    """
    decided = [_assign(name, source, target[name], rules) for name in sorted(target)]
    problems = [each for each in decided if isinstance(each, str)]
    problems += [
        f"{name}: {source[name]} there, nothing here"
        for name in sorted(source.keys() - target.keys())
        if _match(name, rules.dropped + rules.unneeded) is None
    ]
    problems += _idle_rules(source, target, rules)
    if problems:
        raise UsageError(
            "\n  ".join([f"{start} holds another model:", *problems])
            + "\ngive this run the model's settings in the config.json there, or another start"
        )
    return [each for each in decided if isinstance(each, Assignment)]


def _assign(
    name: str, source: Mapping[str, Shape], shape: Shape, rules: WarmStart
) -> Assignment | str:
    """Returns what a parameter begins with, or why there is nothing for it."""
    source_shape = source.get(name)
    if rules.is_fresh(name):
        return Assignment(name, Origin.FRESH, shape, source_shape)
    original = dict(rules.copies).get(name, "")
    if source_shape is None and source.get(original) == shape:
        return Assignment(name, Origin.COPIED, shape, shape, original=original)
    if source_shape is None:
        return f"{name}: nothing there, {shape} here"
    dropped = _match(name, rules.dropped)
    if dropped is not None:
        return f"{name}: the rule dropped={dropped!r} leaves it out, but this model needs it"
    if source_shape == shape:
        return Assignment(name, Origin.SAME, shape, source_shape)
    for pattern, adapter in rules.adapt:
        if not fnmatch.fnmatchcase(name, pattern):
            continue
        # On zeros, so that what the adapter refuses is listed with all other problems.
        try:
            _adapt(adapter, np.zeros(source_shape, np.float32), shape)
        except UsageError as error:
            return f"{name}: {source_shape} there, {shape} here: {error}"
        return Assignment(name, Origin.ADAPTED, shape, source_shape, adapter)
    return f"{name}: {source_shape} there, {shape} here"


def _idle_rules(
    source: Mapping[str, Shape], target: Mapping[str, Shape], rules: WarmStart
) -> Iterator[str]:
    """Names the rules that match nothing: they are misspelt, or made for other models."""
    for kind, patterns, names, where in (
        ("fresh", rules.fresh, target, "this model"),
        ("dropped", rules.dropped, source, "the start"),
        ("adapt", [pattern for pattern, _ in rules.adapt], target, "this model"),
    ):
        for pattern in patterns:
            if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
                yield f"the rule {kind}={pattern!r} matches no parameter of {where}"


def _match(name: str, patterns: Iterable[str]) -> str | None:
    """Returns the first pattern that matches."""
    return next((each for each in patterns if fnmatch.fnmatchcase(name, each)), None)


def _adapt(adapter: Adapter, array: np.ndarray, shape: Shape) -> np.ndarray:
    result = adapter(array, shape)
    assert result.shape == shape, f"{label_of(adapter)}: {result.shape} instead of {shape}"
    return result


def label_of(adapter: Adapter | None) -> str:
    """Returns the name of an adapter."""
    return getattr(adapter, "__name__", repr(adapter))


class Arrays(Protocol):
    """Arrays by name, each read when it is asked for."""

    def __getitem__(self, name: str, /) -> np.ndarray:
        """Returns one array."""
        ...


def apply_plan(plan: Sequence[Assignment], source: Arrays, params: Tree) -> Tree:
    """Returns the parameters that a plan describes, placed on devices as ``params`` are.

    This host holds one array of the start at a time.

    Args:
      plan: of ``plan_warm_start``.
      source: arrays of the start.
      params: initial values of this model, on their devices.
    """
    assignments = {each.name: each for each in plan}

    def value(path: Any, initial: jax.Array) -> jax.Array:
        assignment = assignments[leaf_name(path)]
        if assignment.origin is Origin.FRESH:
            return initial
        array = source[assignment.taken]
        if assignment.adapter is not None:
            array = _adapt(assignment.adapter, array, initial.shape)
        array = array.astype(initial.dtype, copy=False)
        # Each device takes its part.
        return jax.make_array_from_callback(
            initial.shape, initial.sharding, lambda index: array[index]
        )

    return jax.tree_util.tree_map_with_path(value, params)
