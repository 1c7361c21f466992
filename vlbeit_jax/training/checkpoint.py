"""Checkpoints: asynchronous, atomic and self-describing. The only file that imports Orbax."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from vlbeit_jax.errors import UsageError

Tree = Any
DESCRIPTION = "description"
# With small chunks, reading a large array takes little more memory than the array itself.
CHUNK_BYTES = 16 * 2**20
_policies = ocp.checkpoint_managers


class Checkpointer:
    """Writes and reads checkpoints: named trees and a description, in ``folder/STEP/NAME``.

    A step becomes visible once it is complete. Opening removes what an interrupted save has left.
    """

    def __init__(
        self,
        folder: str | pathlib.Path,
        keep_last: int = 1,
        keep_every: int = 0,
        *,
        read_only: bool = False,
        alone: bool = False,
        little_memory: bool = False,
    ):
        """Opens ``folder``, and creates it unless ``read_only``.

        All processes of a run must open, save and restore together, unless they open with
        ``read_only`` or ``alone``.

        Args:
          folder: of the checkpoints.
          keep_last: number of newest steps to keep.
          keep_every: multiples of this step are kept as well; 0 for none.
          read_only: only reads, in this process.
          alone: this process saves by itself.
          little_memory: writes each array to its own files. A file of several arrays (OCDBT) stays
            in memory until it is complete.
        """
        if not read_only:
            pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        keep: list[Any] = [_policies.LatestN(keep_last)]
        if keep_every:
            keep.append(_policies.EveryNSteps(keep_every))
        processes = ocp.options.MultiprocessingOptions()
        self._manager = ocp.CheckpointManager(
            pathlib.Path(folder).resolve(),
            item_handlers=_own_files() if little_memory else None,
            options=ocp.CheckpointManagerOptions(
                multiprocessing_options=_this_process() if read_only or alone else processes,
                preservation_policy=_policies.AnyPreservationPolicy(keep),
                cleanup_tmp_directories=not read_only,
                create=False,
                save_root_metadata=not read_only,
            ),
        )

    def save(self, step: int, trees: Mapping[str, Tree], description: Mapping[str, Any]) -> None:
        """Starts a save and returns once the arrays are copied.

        If writing fails, the next call raises the error.

        Args:
          step: of the checkpoint.
          trees: arrays, by name.
          description: JSON values.
        """
        chunked = ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES)
        items: dict[str, Any] = {
            name: ocp.args.PyTreeSave(tree, save_args=jax.tree.map(lambda _: chunked, tree))
            for name, tree in trees.items()
        }
        items[DESCRIPTION] = ocp.args.JsonSave(dict(description))
        self._manager.save(step, args=ocp.args.Composite(**items), force=True)

    def latest(self) -> int | None:
        """Returns the newest complete step; None if there is none."""
        return self._manager.latest_step()

    def describe(self, step: int) -> dict[str, Any]:
        """Returns the description that was saved with a step."""
        wanted = ocp.args.Composite(**{DESCRIPTION: ocp.args.JsonRestore()})
        return self._manager.restore(step, args=wanted)[DESCRIPTION]

    def restore(self, step: int, abstract: Mapping[str, Tree]) -> dict[str, Tree]:
        """Returns trees of a step, with the shapes, types and shardings of ``abstract``.

        Raises:
          UsageError: the parameters have other shapes; the message lists every difference.
        """
        if "params" in abstract:
            saved = self.leaves(step, "params").shapes
            where = pathlib.Path(self._manager.directory) / str(step)
            check_shapes(saved, abstract["params"], f"{where} holds another model")
        items = {
            name: ocp.args.PyTreeRestore(
                tree, restore_args=ocp.checkpoint_utils.construct_restore_args(tree)
            )
            for name, tree in abstract.items()
        }
        found = self._manager.restore(step, args=ocp.args.Composite(**items))
        return {name: found[name] for name in abstract}

    def leaves(self, step: int, name: str) -> "Leaves":
        """Returns one of the trees, to be read array by array."""
        return Leaves(pathlib.Path(self._manager.directory) / str(step) / name)

    def wait(self) -> None:
        """Waits until every save is on disk; raises if one failed."""
        self._manager.wait_until_finished()
        self._manager.check_for_errors()

    def close(self) -> None:
        """Waits for the saves, then ends the background threads."""
        self.wait()
        self._manager.close()


def _this_process() -> ocp.options.MultiprocessingOptions:
    process = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=process,
        active_processes={process},
        barrier_sync_key_prefix=f"process{process}",
    )


def _own_files() -> dict[str, Any]:
    trees = {name: ocp.PyTreeCheckpointHandler(use_ocdbt=False) for name in ("params", "extra")}
    return {**trees, DESCRIPTION: ocp.JsonCheckpointHandler()}


class Leaves:
    """A saved tree whose arrays are read one at a time, so that it may exceed the memory.

    Attributes:
      shapes: shape of each array by name, the parts of its path joined by "/".
    """

    def __init__(self, folder: pathlib.Path):
        """Reads names and shapes, but no array yet."""
        self._folder, self._reader = folder, ocp.PyTreeCheckpointHandler()
        tree = self._reader.metadata(epath.Path(folder)).tree
        self.shapes: dict[str, tuple[int, ...]] = {
            leaf_name(path): tuple(leaf.shape)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }

    def __getitem__(self, wanted: str) -> np.ndarray:
        """Returns one array, in the memory of this host.

        Raises:
          UsageError: the array cannot be read.
        """
        # A tree of this array alone: with the others as placeholders, each call would take time for
        # all of them.
        parts = wanted.split("/")
        as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
        alone = ocp.args.PyTreeRestore(
            item=_nested(parts, 0), restore_args=_nested(parts, as_numpy), partial_restore=True
        )
        try:
            found = self._reader.restore(epath.Path(self._folder), args=alone)
        except (ValueError, OSError) as error:
            raise UsageError(
                f"{self._folder}: {wanted} cannot be read; the checkpoint is damaged or "
                f"incomplete: {error}"
            ) from error
        for part in parts:
            found = found[part]
        return found


def _nested(parts: Sequence[str], leaf: Any) -> Any:
    """Returns a tree of dictionaries with one leaf, at the end of a path."""
    for part in reversed(parts):
        leaf = {part: leaf}
    return leaf


def leaf_name(path: Any) -> str:
    """Returns a leaf's path with its parts joined by "/"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


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


def check_same(saved: Mapping[str, Any], given: Mapping[str, Any], where: object) -> None:
    """Compares what identifies a run in its checkpoint with what was given.

    Raises:
      UsageError: lists every name on which they differ, with both values.
    """
    different = [
        f"{name}: the checkpoint has {saved.get(name)!r}, this run has {given.get(name)!r}"
        for name in sorted({*saved, *given})
        if saved.get(name) != given.get(name)
    ]
    if different:
        raise UsageError(
            f"{where} holds another run, which cannot be resumed with these settings:\n  "
            + "\n  ".join(different)
            + "\nuse the same data, tokenizers and model, or choose another --workdir"
        )
