"""A saved tree, whose arrays are checked as they are read. Orbax does the reading.

No process waits for another one here, because a file may be damaged for one of them alone.
"""

import functools
import inspect
import logging
import math
import pathlib
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from vlbeit_jax.errors import Damaged, Reported
from vlbeit_jax.shapes import Tree
from vlbeit_jax.storage import NOT_OF_A_FILE, told_of_storage
from vlbeit_jax.training.digest import array_digest
from vlbeit_jax.training.param_names import leaf_name
from vlbeit_jax.training.sealed import SHOWN, Kept, array_facts

Result = TypeVar("Result")
GROUP_BYTES = 256 * 2**20  # Read together where a whole tree is read array by array.
LONGEST = 500  # Characters of an error of another library.
LEFT_BEHIND = "Event loop is closed"  # Error of reads that Orbax no longer waits for.
FULL = "RESOURCE_EXHAUSTED"  # Of a device's memory, which says nothing about the files.


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
        self._tree, self.facts = read_files(folder, "its list of arrays", self._listed)
        paths = (path for path, _ in jax.tree_util.tree_leaves_with_path(self._tree))
        self._paths = {leaf_name(path): path for path in paths}

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
        return read_files(self._folder, "its arrays", lambda: self._restored(asked))

    def _restored(self, asked: Any) -> Tree:
        return self._reader.restore(epath.Path(self._folder), args=asked)

    def _tree_dtype(self, path: Any) -> Any:
        return jax.numpy.dtype(self.facts[leaf_name(path)].dtype)

    def __getitem__(self, wanted: str) -> np.ndarray:
        """Returns one array, in the memory of this host.

        Raises:
          Damaged: the array cannot be read, or is not what was saved.
        """
        return self._read([wanted])[wanted]

    def items(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields name and content of each array.

        Orbax reads the list of all arrays at every call. So one call reads arrays of
        ``GROUP_BYTES`` together, or a larger one alone.

        Raises:
          Damaged: an array cannot be read, or is not what was saved.
        """
        for names in self._groups():
            try:
                yield from self._read(names).items()
            except Damaged:
                for name in names:  # The message names the one that is damaged.
                    yield name, self[name]

    def _groups(self) -> Iterator[list[str]]:
        names, size = [], 0
        for name, facts in self.facts.items():
            own = math.prod(facts.shape) * jax.numpy.dtype(facts.dtype).itemsize
            if names and size + own > GROUP_BYTES:
                yield names
                names, size = [], 0
            names.append(name)
            size += own
        if names:
            yield names

    def _read(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Returns some arrays by name, after their digests are checked."""
        wanted = {self._paths[name]: name for name in names}
        as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
        if all(isinstance(key, jax.tree_util.DictKey) for path in wanted for key in path):
            # A tree of these arrays alone: with the others as placeholders, each call would take
            # time for all of them.
            item, restore_args = _nested(wanted, 0), _nested(wanted, as_numpy)
            asked = ocp.args.PyTreeRestore(
                item=item, restore_args=restore_args, partial_restore=True
            )
        else:  # Orbax takes no part of a list, such as an optimizer's state.
            item = jax.tree_util.tree_map_with_path(
                lambda path, _: 0 if path in wanted else ocp.PLACEHOLDER, self._tree
            )
            restore_args = jax.tree.map(lambda _: as_numpy, self._tree)
            asked = ocp.args.PyTreeRestore(item=item, restore_args=restore_args)
        what = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        tree = read_files(self._folder, what, lambda: self._restored(asked))
        arrays = {name: _at(path, tree) for path, name in wanted.items()}
        if self._known is not None:
            wrong = [
                each
                for each in arrays
                if self._known[each].digest != array_digest(each, arrays[each])
            ]
            if wrong:
                raise Damaged(changed(self._folder, wrong))
        return arrays


def read_files(folder: pathlib.Path, what: str, read: Callable[[], Result]) -> Result:
    """Returns what ``read`` returns, and turns nearly all that goes wrong in it into ``Damaged``.

    Orbax and its libraries raise nearly every type of error over files that are not as they wrote
    them. If the whole storage is away, or this machine lacks something, the files may be good.

    Raises:
      Damaged: the files are not as they were written, or the disk cannot read one of them.
      StorageError: no file can be read now.
      UsageError: this user may not read them.
    """
    ignore_abandoned_work()
    try:
        return read()
    except Reported:
        raise
    except Exception as error:
        full = isinstance(error, RuntimeError) and FULL in str(error)
        if full or isinstance(error, MemoryError):
            raise
        if told := told_of_storage(error, folder, NOT_OF_A_FILE):
            raise told from error
        said = f"{type(error).__name__}: {error}".partition(" [tensorstore_spec=")[0]
    raise Damaged(f"{folder} is damaged: {what} cannot be read: {' '.join(said.split())[:LONGEST]}")


@functools.cache
def ignore_abandoned_work() -> None:
    """Says nothing of other reads or writes that Orbax leaves behind when one of them fails.

    They end some time later, in threads of TensorStore, and would follow the message of the error.
    Orbax also logs the traceback of a failed save several times, in hundreds of lines;
    ``Checkpointer`` raises the error instead.
    """
    hook = sys.unraisablehook

    def report(each: Any) -> None:
        is_abandoned = inspect.iscoroutine(each.object) or LEFT_BEHIND in str(each.exc_value)
        if not is_abandoned:
            hook(each)

    sys.unraisablehook = report
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited")
    unread = logging.getLogger("asyncio")
    unread.addFilter(lambda record: "never retrieved" not in record.getMessage())
    logging.getLogger("absl").addFilter(_is_told_otherwise)


def _is_told_otherwise(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR or "/orbax/" not in record.pathname


def changed(folder: pathlib.Path, names: list[str]) -> str:
    """Returns the message about arrays whose digests differ."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return (
        f"{folder} is damaged: what is read is not what was saved, by the digest of "
        f"{', '.join(names[:SHOWN])}{more}"
    )


def _at(path: Any, tree: Tree) -> Any:
    for key in path:
        tree = tree[_plain(key)]
    return tree


def _nested(paths: Iterable[Any], leaf: Any) -> Any:
    """Returns a tree of dictionaries with the same leaf at the end of each path."""
    tree: dict[Any, Any] = {}
    for *folders, last in paths:
        place = tree
        for key in folders:
            place = place.setdefault(_plain(key), {})
        place[_plain(last)] = leaf
    return tree


def _plain(key: Any) -> Any:
    """Returns the key or the index that one step of a path takes."""
    return key.idx if isinstance(key, jax.tree_util.SequenceKey) else key.key
