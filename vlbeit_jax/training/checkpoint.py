"""Checkpoints: the one file that knows Orbax. Asynchronous, atomic, self-describing."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from vlbeit_jax.errors import UsageError

Tree = Any
DESCRIPTION = "description"
CHUNK_BYTES = 16 * 2**20  # So that reading a large array takes little more memory than the array.
_policies = ocp.checkpoint_managers


class Checkpointer:
    """Named trees and a description per step, in ``folder/STEP/NAME``.

    A step becomes visible when all of it is written; what a cut-off save left behind is removed on opening.
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
        """Opens or makes ``folder``; keeps the newest ``keep_last`` steps and every multiple of ``keep_every``.

        All processes of a run open, save and restore together; ``read_only``, or ``alone``, a process is by itself.
        ``little_memory``: each array gets files of its own. A shared file's content (OCDBT) waits in memory until it is complete.
        """
        if not read_only:
            pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        keep: list[Any] = [_policies.LatestN(keep_last)]
        if keep_every:
            keep.append(_policies.EveryNSteps(keep_every))
        self._manager = ocp.CheckpointManager(
            pathlib.Path(folder).resolve(),
            item_handlers=_files_apart() if little_memory else None,
            options=ocp.CheckpointManagerOptions(
                multiprocessing_options=_by_itself()
                if read_only or alone
                else ocp.options.MultiprocessingOptions(),
                preservation_policy=_policies.AnyPreservationPolicy(keep),
                cleanup_tmp_directories=not read_only,
                create=False,
                save_root_metadata=not read_only,
            ),
        )

    def save(self, step: int, trees: Mapping[str, Tree], description: Mapping[str, Any]) -> None:
        """Starts writing; returns when the arrays have been copied. The error of a failed write comes with the next call."""
        chunked = ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES)
        items = {
            name: ocp.args.PyTreeSave(tree, save_args=jax.tree.map(lambda _: chunked, tree))
            for name, tree in trees.items()
        }
        self._manager.save(
            step,
            args=ocp.args.Composite(**items, **{DESCRIPTION: ocp.args.JsonSave(dict(description))}),
            force=True,
        )

    def latest(self) -> int | None:
        """The newest complete step."""
        return self._manager.latest_step()

    def describe(self, step: int) -> dict[str, Any]:
        """What was said about a step when it was saved."""
        return self._manager.restore(
            step, args=ocp.args.Composite(**{DESCRIPTION: ocp.args.JsonRestore()})
        )[DESCRIPTION]

    def restore(self, step: int, abstract: Mapping[str, Tree]) -> dict[str, Tree]:
        """The trees that are asked for, with the shapes, types and shardings of ``abstract``.

        Raises:
          UsageError: parameters have other shapes there, as in a run of an older version; every difference is listed.
        """
        items = {
            name: ocp.args.PyTreeRestore(
                tree, restore_args=ocp.checkpoint_utils.construct_restore_args(tree)
            )
            for name, tree in abstract.items()
        }
        if "params" in abstract:
            folder = pathlib.Path(self._manager.directory)
            check_shapes(
                self.leaves(step, "params").shapes,
                abstract["params"],
                f"{folder / str(step)} holds another model",
            )
        found = self._manager.restore(step, args=ocp.args.Composite(**items))
        return {name: found[name] for name in abstract}

    def leaves(self, step: int, name: str) -> "Leaves":
        """One of the trees, to be read array by array."""
        return Leaves(pathlib.Path(self._manager.directory) / str(step) / name)

    def wait(self) -> None:
        """Until every save is on disk; raises if one failed."""
        self._manager.wait_until_finished()
        self._manager.check_for_errors()

    def close(self) -> None:
        """Waits, then ends the background threads."""
        self.wait()
        self._manager.close()


def _by_itself() -> ocp.options.MultiprocessingOptions:
    me = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process{me}"
    )


def _files_apart() -> dict[str, Any]:
    trees = {name: ocp.PyTreeCheckpointHandler(use_ocdbt=False) for name in ("params", "extra")}
    return {**trees, DESCRIPTION: ocp.JsonCheckpointHandler()}


class Leaves:
    """A saved tree whose arrays are read one at a time, so that a model may be larger than the memory.

    Attributes:
      shapes: by name, the path's parts joined by "/".
    """

    def __init__(self, folder: pathlib.Path):
        """Reads what there is, and nothing of it yet."""
        self._folder, self._reader = folder, ocp.PyTreeCheckpointHandler()
        self._tree = self._reader.metadata(epath.Path(folder)).tree
        self.shapes: dict[str, tuple[int, ...]] = {
            leaf_name(path): tuple(leaf.shape)
            for path, leaf in jax.tree_util.tree_leaves_with_path(self._tree)
        }

    def __getitem__(self, wanted: str) -> np.ndarray:
        """One array, in the memory of this host.

        Raises:
          UsageError: it cannot be read.
        """
        pick = jax.tree_util.tree_map_with_path(
            lambda path, _: 0 if leaf_name(path) == wanted else ocp.PLACEHOLDER, self._tree
        )
        how = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), self._tree)
        try:
            found = self._reader.restore(
                epath.Path(self._folder), args=ocp.args.PyTreeRestore(item=pick, restore_args=how)
            )
        except (ValueError, OSError) as error:
            raise UsageError(
                f"{self._folder}: {wanted} cannot be read, the checkpoint is damaged or cut off: {error}"
            ) from error
        (leaf,) = [
            leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(found)
            if leaf_name(path) == wanted
        ]
        return leaf


def leaf_name(path: Any) -> str:
    """A leaf's path with its parts joined by "/"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def check_shapes(there: Mapping[str, tuple[int, ...]], abstract: Tree, what: str) -> None:
    """Raises a ``UsageError`` that begins with ``what`` and has every parameter of another shape, or that one side lacks."""
    here = {
        leaf_name(path): tuple(leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(abstract)
    }
    wrong = [
        f"{name}: {there.get(name, 'nothing')} there, {here.get(name, 'nothing')} here"
        for name in sorted({*there, *here})
        if there.get(name) != here.get(name)
    ]
    if wrong:
        raise UsageError(f"{what}:\n  " + "\n  ".join(wrong))


def check_same(saved: Mapping[str, Any], now: Mapping[str, Any], where: object) -> None:
    """Raises a ``UsageError`` with both values for every name on which a checkpoint and this run differ."""
    different = [
        f"{name}: the checkpoint has {saved.get(name)!r}, this run has {now.get(name)!r}"
        for name in sorted({*saved, *now})
        if saved.get(name) != now.get(name)
    ]
    if different:
        raise UsageError(
            f"{where} was written by another run and cannot go on here:\n  "
            + "\n  ".join(different)
            + "\n"
            "use the same data, tokenizers and model, or another --workdir"
        )
