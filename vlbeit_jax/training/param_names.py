"""Names of the leaves of a tree, and a comparison of their shapes."""

from collections.abc import Mapping
from typing import Any

import jax

from vlbeit_jax.errors import UsageError
from vlbeit_jax.shapes import Tree


def leaf_name(path: Any) -> str:
    """Returns a leaf's path with its parts joined by "/"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def parameter_names(tree: Tree) -> list[str]:
    """Returns the names of the leaves, in their order."""
    return [leaf_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def check_shapes(saved: Mapping[str, tuple[int, ...]], abstract: Tree, what: str) -> None:
    """Compares saved parameters with those that are needed.

    Args:
      saved: shapes by name.
      abstract: a tree of shapes.
      what: beginning of the error message.

    Raises:
      UsageError: lists every parameter whose shape differs or that is missing on one side.
    """
    needed = {
        leaf_name(path): tuple(leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(abstract)
    }
    different = [
        f"{name}: {saved.get(name, 'nothing')} there, {needed.get(name, 'nothing')} here"
        for name in sorted({*saved, *needed})
        if saved.get(name) != needed.get(name)
    ]
    if different:
        raise UsageError(f"{what}:\n  " + "\n  ".join(different))
