"""Which parameters a run trains (``optimizer.trainable``), and how trees are parted by them.

Parameters that are not trained are *fixed*. A tree for the trained ones alone, such as gradients,
moments or averages, has the structure of the parameters without the fixed leaves. So a fixed
parameter has no gradient that could be computed, reduced over devices or kept.
"""

import dataclasses
import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence

import jax

from vlbeit_jax.config.common import ALL, HEADS, TOP
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.backbone import layer_of
from vlbeit_jax.shapes import Tree
from vlbeit_jax.training.param_names import parameter_names

# Where the parts above the encoder are in the trees of the tasks: what ``heads`` means.
_HEADS = ("head", "pooler", "vision_head", "language_head")
_BLOCK = re.compile(r"(?<=/block_)\d+(?=/)")


@dataclasses.dataclass(frozen=True)
class Trained:
    """The parameters that a run trains.

    Attributes:
      names: of the parameters; None: all.
    """

    names: frozenset[str] | None = None

    def of(self, tree: Tree) -> Tree:
        """Returns the part of a tree, with one leaf per parameter, that belongs to these."""
        return tree if self.names is None else _part(tree, self.names, "")

    def reaches(self, depth: int) -> int:
        """Returns how many top blocks of an encoder the backward pass goes through.

        Args:
          depth: blocks of the encoder.
        """
        if self.names is None:
            return depth
        return min(depth, max(_reach(name.split("/"), depth) for name in self.names))

    def __contains__(self, name: str) -> bool:
        return self.names is None or name in self.names


EVERYTHING = Trained()


def trained_parameters(setting: str, tree: Tree) -> Trained:
    """Returns what ``optimizer.trainable`` selects.

    Args:
      setting: its value.
      tree: a leaf per parameter of the network.

    Raises:
      UsageError: a part of the setting selects nothing; the message lists what there is.
    """
    names = parameter_names(tree)
    if setting == ALL:
        return EVERYTHING
    parts = [part.strip() for part in setting.split(",")]
    by_part = {part: frozenset(_selected(part, names)) for part in parts}
    problems = [
        f"config.optimizer.trainable={setting}: {part!r} selects no parameter of this network"
        for part, selected in by_part.items()
        if not selected
    ]
    if len(stacks := _stacks(names)) > 1:
        # A tokenizer's decoder lies between its encoder and one of its losses, and not the other.
        problems += [
            f"config.optimizer.trainable={setting}: {part} counts blocks from the heads down, but "
            f"this network has blocks in {' and '.join(stacks)}; give names instead, such as "
            f"{stacks[0]}/*"
            for part in parts
            if part.startswith(TOP)
        ]
    blocks = _count_blocks(names)
    problems += [
        f"config.optimizer.trainable={setting}: {part} asks for more blocks than the {blocks} of "
        "this network"
        for part, selected in by_part.items()
        if selected and part.startswith(TOP) and int(part.removeprefix(TOP)) > blocks
    ]
    if problems:
        raise UsageError(
            "\n".join(problems)
            + f"\nit has these, with {blocks} blocks:\n  "
            # "block_*" instead of every block, or base size would fill 300 lines.
            + "\n  ".join(dict.fromkeys(_BLOCK.sub("*", name) for name in names))
        )
    selected = frozenset().union(*by_part.values())
    return EVERYTHING if len(selected) == len(names) else Trained(selected)


def describe_trained(setting: str, trained: Trained, params: Tree, start: str) -> str:
    """Returns how many numbers are trained, on one line; empty if all are.

    Args:
      setting: the value of ``optimizer.trainable``.
      trained: what it selects.
      params: arrays or shapes.
      start: the value of ``run.start_from``.
    """
    if trained.names is None:
        return ""
    moved, whole = (
        sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (trained.of(params), params)
    )
    kept = f"the values of {start}" if start else "random values, because run.start_from is empty"
    return (
        f"optimizer.trainable={setting} trains {moved:,} of {whole:,} parameters "
        f"({moved / whole:.1%}); the others keep {kept}"
    )


def check_fixed(setting: str, trained: Trained, fresh: Iterable[str], start: object) -> None:
    """Refuses a start in which fixed parameters would stay at random values.

    Args:
      setting: the value of ``optimizer.trainable``.
      trained: what it selects.
      fresh: names of the parameters that the start does not give.
      start: the start, for the message.

    Raises:
      UsageError: lists these parameters.
    """
    random = [name for name in fresh if name not in trained]
    if random:
        raise UsageError(
            f"config.optimizer.trainable={setting} leaves out parameters that run.start_from="
            f"{start} does not give, so they would keep random values; add their names, or "
            "patterns of them, separated by commas:\n  " + "\n  ".join(random)
        )


def part_like(tree: Tree, part: Tree) -> Tree:
    """Returns the leaves of ``tree`` that ``part`` has too, in the structure of ``part``."""
    if not isinstance(part, Mapping):
        return tree
    return {name: part_like(tree[name], inside) for name, inside in part.items()}


def replaced(tree: Tree, part: Tree) -> Tree:
    """Returns ``tree`` with the leaves of ``part``, which may lack some, in their places."""
    if not isinstance(tree, Mapping):
        return part
    return {
        name: replaced(value, part[name]) if name in part else value for name, value in tree.items()
    }


def _selected(part: str, names: Sequence[str]) -> Iterable[str]:
    """Returns the names that one part of the setting selects."""
    if part == HEADS:
        return [name for name in names if name.split("/")[0] in _HEADS]
    if not part.startswith(TOP):
        return fnmatch.filter(names, part)
    blocks = _count_blocks(names)
    count = int(part.removeprefix(TOP))
    return [name for name in names if blocks and _reach(name.split("/"), blocks) <= count]


def _reach(path: Sequence[str], depth: int) -> int:
    """Returns the top blocks between the loss and a parameter, with its own.

    Embeddings lie below all blocks, and so does VLMo's table of relative positions, which every
    block uses: one more than ``depth``.
    """
    if path[0] == "encoder" and path[1].startswith("block_"):
        return depth + 1 - layer_of(path, depth)
    above = path[0] in _HEADS or (path[0] == "encoder" and path[1].endswith("norm"))
    return 0 if above else depth + 1


def _count_blocks(names: Iterable[str]) -> int:
    return len({name.split("/")[1] for name in names if name.startswith("encoder/block_")})


def _stacks(names: Iterable[str]) -> list[str]:
    """Returns the parts of a network that consist of blocks and are no head."""
    parts = dict.fromkeys(name.split("/")[0] for name in names if _BLOCK.search(name))
    return [part for part in parts if part not in _HEADS]


def _part(tree: Tree, names: frozenset[str], path: str) -> Tree:
    kept = {}
    for name, value in tree.items():
        here = f"{path}{name}"
        if not isinstance(value, Mapping):
            if here in names:
                kept[name] = value
        elif inside := _part(value, names, f"{here}/"):
            kept[name] = inside
    return kept
