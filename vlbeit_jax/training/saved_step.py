"""One saved step: what it says of itself, and its arrays, which are checked as they are read.

No process waits for another one here, because a file may be damaged for one of them alone. This
file and ``checkpoint`` are the only ones that import Orbax.
"""

import functools
import inspect
import json
import logging
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from vlbeit_jax.errors import Damaged, Reported, UsageError
from vlbeit_jax.training import sealed
from vlbeit_jax.training.digest import array_digest, tree_digests
from vlbeit_jax.training.param_names import leaf_name
from vlbeit_jax.training.sealed import Kept, array_facts, differences, saved_arrays

Tree = Any
Result = TypeVar("Result")
DESCRIPTION = "description"
# The layout of a step, which its description states. Format 1 has no such entry: it kept the model
# state in the item "extra", and did not count refused updates. Formats 1 and 2 have no digests.
FORMAT, MODEL_STATE_OF_FORMAT_1 = 3, "extra"
SHOWN = 3  # Arrays that a message names.
LONGEST = 500  # Characters of an error of another library.
LEFT_BEHIND = "Event loop is closed"  # What a read says that Orbax no longer waits for.
FULL = "RESOURCE_EXHAUSTED"  # Of a device's memory, which says nothing about the files.


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
        found, newer = _read(self.folder, "its description", lambda: _parsed(path))
        number = found.get("format", 1)
        if (sealed.is_sealed(found) or number == FORMAT) and not newer:
            if wrong := sealed.broken_seal(found):
                raise Damaged(f"{self.folder} is damaged: its description is changed: {wrong}")
        return found

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

    def leaves(self, name: str) -> "Leaves":
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
            found = tree_digests(tree)
            wrong = [leaf for leaf in found if known[leaf].digest != found[leaf].text]
            if wrong:
                raise Damaged(_changed(self.folder / self._item_name(name), wrong))
        return {
            name: jax.tree.map(lambda leaf, like: leaf.astype(like.dtype), tree, abstract[name])
            for name, tree in trees.items()
        }

    def _item_name(self, name: str) -> str:
        self.require_known_format()
        return MODEL_STATE_OF_FORMAT_1 if self.format == 1 and name == "model_state" else name


class Leaves:
    """A saved tree whose arrays are read one at a time, so that it may exceed the memory.

    Attributes:
      facts: type and shape of each array by name, the parts of its path joined by "/".
    """

    def __init__(self, folder: pathlib.Path, known: Mapping[str, Kept] | None = None):
        """Reads names and shapes, but no array yet.

        Args:
          folder: of the tree.
          known: digests of its arrays; None if there are none.

        Raises:
          Damaged: they cannot be read.
        """
        self._folder, self._known = folder, known
        self._reader = ocp.PyTreeCheckpointHandler()
        self._tree, self.facts = _read(folder, "its list of arrays", self._listed)

    def _listed(self) -> tuple[Tree, dict[str, Kept]]:
        tree = self._reader.metadata(epath.Path(self._folder)).tree
        return tree, array_facts(tree)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each array by name."""
        return {name: facts.shape for name, facts in self.facts.items()}

    def restore(self, like: Tree) -> Tree:
        """Returns the whole tree, with the shapes and shardings of ``like``, in its own types."""
        wanted = jax.tree_util.tree_map_with_path(
            lambda path, leaf: jax.ShapeDtypeStruct(
                leaf.shape,
                self._tree_dtype(path),
                sharding=getattr(leaf, "sharding", None),
            ),
            like,
        )
        restore_args = ocp.checkpoint_utils.construct_restore_args(wanted)
        asked = ocp.args.PyTreeRestore(wanted, restore_args=restore_args)
        return _read(self._folder, "its arrays", lambda: self._restored(asked))

    def _restored(self, asked: Any) -> Tree:
        return self._reader.restore(epath.Path(self._folder), args=asked)

    def _tree_dtype(self, path: Any) -> Any:
        return jax.numpy.dtype(self.facts[leaf_name(path)].dtype)

    def __getitem__(self, wanted: str) -> np.ndarray:
        """Returns one array, in the memory of this host.

        Raises:
          Damaged: the array cannot be read, or is not what was saved.
        """
        paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(self._tree)]
        (path,) = (path for path in paths if leaf_name(path) == wanted)
        as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
        if all(isinstance(key, jax.tree_util.DictKey) for key in path):
            # A tree of this array alone: with the others as placeholders, each call would take time
            # for all of them.
            alone = ocp.args.PyTreeRestore(
                item=_nested(path, 0), restore_args=_nested(path, as_numpy), partial_restore=True
            )
        else:  # Orbax takes no part of a list, such as an optimizer's state.
            alone = self._others_as_placeholders(path, as_numpy)
        found = _read(self._folder, wanted, lambda: _at(path, self._restored(alone)))
        if self._known is not None and self._known[wanted].digest != array_digest(wanted, found):
            raise Damaged(_changed(self._folder, [wanted]))
        return found

    def _others_as_placeholders(self, wanted: Any, as_numpy: ocp.RestoreArgs) -> Any:
        item = jax.tree_util.tree_map_with_path(
            lambda path, _: 0 if path == wanted else ocp.PLACEHOLDER, self._tree
        )
        restore_args = jax.tree.map(lambda _: as_numpy, self._tree)
        return ocp.args.PyTreeRestore(item=item, restore_args=restore_args)


def _read(folder: pathlib.Path, what: str, read: Callable[[], Result]) -> Result:
    """Returns what ``read`` returns, and turns whatever goes wrong in it into ``Damaged``.

    Orbax and its libraries raise nearly every type of error over files that are not as they wrote
    them.
    """
    _ignore_abandoned_reads()
    try:
        return read()
    except Reported:
        raise
    except Exception as error:
        if isinstance(error, RuntimeError) and FULL in str(error):
            raise
        said = f"{type(error).__name__}: {error}".partition(" [tensorstore_spec=")[0]
    raise Damaged(f"{folder} is damaged: {what} cannot be read: {' '.join(said.split())[:LONGEST]}")


@functools.cache
def _ignore_abandoned_reads() -> None:
    """Says nothing of the other reads that Orbax leaves behind when one of them fails.

    They end some time later, in threads of TensorStore, and would follow the message of the error.
    """
    hook = sys.unraisablehook

    def report(each: Any) -> None:
        is_abandoned = inspect.iscoroutine(each.object) or LEFT_BEHIND in str(each.exc_value)
        if not is_abandoned:
            hook(each)

    sys.unraisablehook = report
    unread = logging.getLogger("asyncio")
    unread.addFilter(lambda record: "never retrieved" not in record.getMessage())


def _changed(folder: pathlib.Path, names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (
        f"{folder} is damaged: what is read is not what was saved, by the digest of "
        f"{', '.join(names[:SHOWN])}{more}"
    )


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
    found = json.loads(path.read_text())
    return found, found.get("format", 1) > FORMAT


def _at(path: Any, tree: Tree) -> Any:
    for key in path:
        tree = tree[_plain(key)]
    return tree


def _nested(path: Any, leaf: Any) -> Any:
    """Returns a tree of dictionaries with one leaf, at the end of a path."""
    for key in reversed(path):
        leaf = {_plain(key): leaf}
    return leaf


def _plain(key: Any) -> Any:
    """Returns the key or the index that one step of a path takes."""
    return key.idx if isinstance(key, jax.tree_util.SequenceKey) else key.key
