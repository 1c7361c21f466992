"""One saved step: what it says of itself, and its trees, which are checked as they are read."""

import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from vlbeit_jax.errors import Damaged, UsageError
from vlbeit_jax.shapes import Tree
from vlbeit_jax.training import sealed
from vlbeit_jax.training.digest import is_here, tree_digests
from vlbeit_jax.training.leaves import Leaves, changed, read_files
from vlbeit_jax.training.sealed import SHOWN, array_facts, differences, saved_arrays

DESCRIPTION = "description"
# The layout of a step, which its description states. Format 1 has no such entry: it kept the model
# state in the item "extra", and did not count refused updates. Formats 1 and 2 have no digests.
FORMAT, MODEL_STATE_OF_FORMAT_1 = 3, "extra"


class SavedStep:
    """A complete step in ``folder``."""

    def __init__(self, folder: pathlib.Path):
        """Reads nothing yet."""
        self.folder = folder

    @functools.cached_property
    def description(self) -> dict[str, Any]:
        """The description that was saved.

        Raises:
          Damaged: it cannot be read, or is not what was saved.
          UsageError: a newer version of this package wrote it.
        """
        path = self.folder / DESCRIPTION / "metadata"
        content, newer = read_files(self.folder, "its description", lambda: _parsed(path))
        number = content.get("format", 1)
        if (sealed.is_sealed(content) or number == FORMAT) and not newer:
            if wrong := sealed.broken_seal(content):
                raise Damaged(f"{self.folder} is damaged: its description is changed: {wrong}")
        return content

    @property
    def format(self) -> int:
        """The number of its format."""
        return self.description.get("format", 1)

    @property
    def has_digests(self) -> bool:
        """Whether its arrays can be checked; those of earlier versions cannot."""
        return sealed.is_sealed(self.description)

    def require_known_format(self) -> None:
        """Raises a ``UsageError`` if a newer version of this package wrote the step."""
        if self.format > FORMAT:
            version = self.description.get("versions", {}).get("vlbeit_jax", "a newer one")
            raise UsageError(
                f"{self.folder} has format {self.format}, but this version of vlbeit_jax reads "
                f"formats up to {FORMAT}; install the version that wrote it: {version}"
            )

    def trees(self) -> list[str]:
        """Returns the names of its trees; without digests, of those whose files are there."""
        if self.has_digests:
            return list(self.description[sealed.ARRAYS])
        return sorted(path.parent.name for path in self.folder.glob("*/_METADATA"))

    def has(self, name: str) -> bool:
        """Whether a tree was saved with it."""
        if self.has_digests:
            return name in self.description[sealed.ARRAYS]
        return (self.folder / name).is_dir()

    def leaves(self, name: str) -> Leaves:
        """Returns one of the trees, to be read array by array.

        Raises:
          Damaged: names, types and shapes cannot be read, or are not those that were saved.
        """
        item = self._item_name(name)
        known = saved_arrays(self.description, item) if self.has_digests else None
        leaves = Leaves(self.folder / item, known)
        if known is not None:
            saved = {leaf: facts._replace(digest="") for leaf, facts in known.items()}
            if different := differences(leaves.facts, saved):
                raise Damaged(
                    f"{self.folder / item} is damaged: its files do not hold the arrays that the "
                    f"description lists (here): {'; '.join(different[:SHOWN])}"
                )
        return leaves

    def read(self, abstract: Mapping[str, Tree], *, exact: bool = False) -> dict[str, Tree]:
        """Returns trees with the shapes and shardings of ``abstract``, in the types of the files.

        Names, shapes and types are checked before any array is read. ``checked`` checks the rest.

        Args:
          abstract: by name.
          exact: types must be equal; otherwise they may be narrower in the files.

        Raises:
          Damaged: something cannot be read, or is not what was saved.
          UsageError: the step holds other arrays; the message lists every difference.
        """
        leaves = {name: self.leaves(name) for name in abstract}
        for name, tree in abstract.items():
            _require_equal(leaves[name], tree, self.folder, name, exact)
        return {name: leaves[name].restore(tree) for name, tree in abstract.items()}

    def checked(self, trees: Mapping[str, Tree], abstract: Mapping[str, Tree]) -> dict[str, Tree]:
        """Returns trees of ``read`` in the types of ``abstract``, after their digests are checked.

        All processes that hold a part of an array must call it together.

        Raises:
          Damaged: an array is not what was saved. Every process raises it.
        """
        for name, tree in trees.items() if self.has_digests else ():
            known = saved_arrays(self.description, self._item_name(name))
            digests = tree_digests(tree)
            wrong = [leaf for leaf in digests if known[leaf].digest != digests[leaf].text]
            if wrong:
                raise Damaged(changed(self.folder / self._item_name(name), wrong))
        return {
            name: jax.tree.map(lambda leaf, like: _as_type(leaf, like.dtype), tree, abstract[name])
            for name, tree in trees.items()
        }

    def _item_name(self, name: str) -> str:
        self.require_known_format()
        return MODEL_STATE_OF_FORMAT_1 if self.format == 1 and name == "model_state" else name


def _as_type(leaf: Any, dtype: Any) -> Any:
    """Returns an array in a type; JAX would compile a program for each shape."""
    if leaf.dtype == dtype:
        return leaf
    if not is_here(leaf):
        return leaf.astype(dtype)
    array = np.asarray(leaf).astype(dtype)
    return jax.device_put(array, leaf.sharding) if isinstance(leaf, jax.Array) else array


def _require_equal(
    leaves: Leaves, tree: Tree, folder: pathlib.Path, name: str, exact: bool
) -> None:
    """Raises a ``UsageError`` unless a saved tree can be read as ``tree``."""
    saved, needed = leaves.facts, array_facts(tree)
    for leaf in saved.keys() & needed.keys() if not exact else ():
        if np.can_cast(jax.numpy.dtype(saved[leaf].dtype), jax.numpy.dtype(needed[leaf].dtype)):
            saved = {**saved, leaf: saved[leaf]._replace(dtype=needed[leaf].dtype)}
    if different := differences(saved, needed):
        other = "another model" if name == "params" else f"another {name}"
        raise UsageError("\n  ".join([f"{folder} holds {other}:", *different]))


def _parsed(path: pathlib.Path) -> tuple[dict[str, Any], bool]:
    """Returns a description, and whether a newer version wrote it."""
    content = json.loads(path.read_text())
    return content, content.get("format", 1) > FORMAT
