"""The engine: tables of rules that are read in both directions.

A table is checked before anything is converted: every parameter and every tensor must be in it
exactly once.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from vlbeit_jax.convert.permutations import SAME, Permutation
from vlbeit_jax.errors import UsageError

Shape = tuple[int, ...]
Arrays = Mapping[str, np.ndarray]


class Rule(NamedTuple):
    """Some of our parameters, the tensors that hold them elsewhere, and how values move.

    Attributes:
      jax: names of our parameters, parts joined by "/".
      torch: names of the other program's tensors.
      permutation: between the two.
    """

    jax: tuple[str, ...]
    torch: tuple[str, ...]
    permutation: Permutation


def rule(jax: str, torch: str, permutation: Permutation = SAME) -> Rule:
    """Makes a rule from names that are separated by blanks."""
    return Rule(tuple(jax.split()), tuple(torch.split()), permutation)


@dataclasses.dataclass(frozen=True)
class Table:
    """What a format holds of a model.

    Attributes:
      rules: one per group of parameters.
      left_out: reasons by name of our parameters that the format does not hold. An import leaves
        them at their initial values.
      constant: tensors that the format requires and that hold nothing of ours. They are exported
        as they are here and ignored by an import.
      ignored: reasons by name of tensors that a file may hold and that an import ignores.
    """

    rules: list[Rule]
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    constant: Arrays = dataclasses.field(default_factory=dict)
    ignored: Mapping[str, str] = dataclasses.field(default_factory=dict)


def check_parameters(table: Table, shapes: Mapping[str, Shape]) -> None:
    """Raises a ``UsageError`` unless each parameter is in exactly one rule or left out by name."""
    used = [name for each in table.rules for name in each.jax] + list(table.left_out)
    _raise_if_any(
        {
            "parameters without a rule": sorted(set(shapes) - set(used)),
            "rules for parameters that do not exist": sorted(set(used) - set(shapes)),
            "parameters in two rules": sorted({name for name in used if used.count(name) > 1}),
        }
    )


def export(table: Table, params: Arrays) -> dict[str, np.ndarray]:
    """Converts our parameters to the other program's tensors, in the table's order.

    Raises:
      UsageError: the table does not fit the parameters.
    """
    check_parameters(table, {name: value.shape for name, value in params.items()})
    tensors: dict[str, np.ndarray] = {}
    for each in table.rules:
        values = each.permutation.export(*(params[name] for name in each.jax))
        tensors |= zip(each.torch, values, strict=True)
    return {**tensors, **table.constant}


@dataclasses.dataclass
class Report:
    """What became of every tensor of a file.

    Attributes:
      matched: tensors whose values were taken.
      fresh: reasons by name of our parameters that the file does not hold.
      dropped: reasons by name of tensors whose values were not taken.
      notes: sentences on what was changed or left out before the rules were applied.
    """

    matched: list[str]
    fresh: dict[str, str]
    dropped: dict[str, str]
    notes: tuple[str, ...] = ()

    def counts(self) -> str:
        """How many there are of each; the lines of a large network do not fit a terminal."""
        groups = (
            (self.matched, "tensor became a parameter", "tensors became parameters"),
            (self.fresh, "parameter is fresh", "parameters are fresh"),
            (self.dropped, "tensor was dropped", "tensors were dropped"),
        )
        return ", ".join(
            f"{len(names)} {one if len(names) == 1 else several}"
            for names, one, several in groups
            if names
        )

    def __str__(self) -> str:
        """One line per note and name."""
        lines = [f"note     {note}" for note in self.notes]
        lines += [f"matched  {name}" for name in self.matched]
        lines += [f"fresh    {name}: {why}" for name, why in self.fresh.items()]
        lines += [f"dropped  {name}: {why}" for name, why in self.dropped.items()]
        return "\n".join(lines)


def load(
    table: Table, tensors: Arrays, shapes: Mapping[str, Shape]
) -> tuple[dict[str, np.ndarray], Report]:
    """Converts the other program's tensors to our parameters.

    Args:
      table: of the format.
      tensors: the file's, by name.
      shapes: of all our parameters.

    Raises:
      UsageError: a tensor is missing, is unknown, or has the wrong shape; all are listed.
    """
    check_parameters(table, shapes)
    # An export of parameters without memory of their own tells names and shapes of the tensors.
    blank = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    wanted = {name: value.shape for name, value in export(table, blank).items()}
    for name in table.constant:
        del wanted[name]
    _raise_if_any(
        {
            "missing tensors": sorted(set(wanted) - set(tensors)),
            "tensors that no rule uses": sorted(
                set(tensors) - set(wanted) - set(table.constant) - set(table.ignored)
            ),
            "tensors of the wrong shape": [
                f"{name} is {list(tensors[name].shape)}, expected {list(shape)}"
                for name, shape in wanted.items()
                if name in tensors and tensors[name].shape != shape
            ],
        }
    )
    params = {}
    for each in table.rules:
        values = each.permutation.load(*(tensors[name] for name in each.torch))
        params |= zip(each.jax, values, strict=True)
    dropped = {
        name: table.ignored.get(name, "holds no values of ours")
        for name in sorted(tensors)
        if name not in wanted
    }
    return params, Report(sorted(wanted), dict(table.left_out), dropped)


def _raise_if_any(problems: Mapping[str, list[str]]) -> None:
    lines = [f"{what}: {', '.join(names)}" for what, names in problems.items() if names]
    if lines:
        raise UsageError("the weights do not fit the model:\n  " + "\n  ".join(lines))
