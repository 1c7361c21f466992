"""Checkpoints: asynchronous, atomic and self-describing. The only file that imports Orbax."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from vlbeit_jax.errors import UsageError
from vlbeit_jax.training.param_names import check_shapes, leaf_name
from vlbeit_jax.training.state import TrainState

Tree = Any
DESCRIPTION = "description"
# The layout of a checkpoint, which its description states. Format 1 has no such entry: it kept the
# model state in the item "extra", and did not count refused updates.
FORMAT, MODEL_STATE_OF_FORMAT_1 = 2, "extra"
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
        """
        if not read_only:
            pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        keep: list[Any] = [_policies.LatestN(keep_last)]
        if keep_every:
            keep.append(_policies.EveryNSteps(keep_every))
        processes = ocp.options.MultiprocessingOptions()
        self._manager = ocp.CheckpointManager(
            pathlib.Path(folder).resolve(),
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
          description: JSON values; the format of the checkpoint is added.
        """
        chunked = ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES)
        items: dict[str, Any] = {
            name: ocp.args.PyTreeSave(tree, save_args=jax.tree.map(lambda _: chunked, tree))
            for name, tree in trees.items()
        }
        items[DESCRIPTION] = ocp.args.JsonSave({"format": FORMAT, **description})
        self._manager.save(step, args=ocp.args.Composite(**items), force=True)

    def latest(self) -> int | None:
        """Returns the newest complete step; None if there is none."""
        return self._manager.latest_step()

    def describe(self, step: int) -> dict[str, Any]:
        """Returns the description that was saved with a step."""
        wanted = ocp.args.Composite(**{DESCRIPTION: ocp.args.JsonRestore()})
        return self._manager.restore(step, args=wanted)[DESCRIPTION]

    def format(self, step: int) -> int:
        """Returns the format of a checkpoint.

        Raises:
          UsageError: a newer version of this package wrote it.
        """
        description = self.describe(step)
        found = description.get("format", 1)
        if found > FORMAT:
            version = description.get("versions", {}).get("vlbeit_jax", "a newer one")
            raise UsageError(
                f"{self._folder(step)} has format {found}, but this version of vlbeit_jax reads "
                f"formats up to {FORMAT}; install the version that wrote it: {version}"
            )
        return found

    def restore(self, step: int, abstract: Mapping[str, Tree]) -> dict[str, Tree]:
        """Returns trees of a step, with the shapes, types and shardings of ``abstract``.

        Raises:
          UsageError: the parameters have other shapes; the message lists every difference.
        """
        if "params" in abstract:
            saved = self.leaves(step, "params").shapes
            check_shapes(saved, abstract["params"], f"{self._folder(step)} holds another model")
        item_names = {name: self._item_name(step, name) for name in abstract}
        items = {
            item_names[name]: ocp.args.PyTreeRestore(
                tree, restore_args=ocp.checkpoint_utils.construct_restore_args(tree)
            )
            for name, tree in abstract.items()
        }
        found = self._manager.restore(step, args=ocp.args.Composite(**items))
        return {name: found[item_names[name]] for name in abstract}

    def restore_state(self, step: int, abstract: TrainState) -> TrainState:
        """Returns the state of a run, with the shapes, types and shardings of ``abstract``.

        If the checkpoint has no averaged parameters but the run wants them, the average starts at
        the parameters.
        """
        wanted, place = abstract.saved(), abstract.skipped.sharding
        if no_average := abstract.ema is not None and not (self._folder(step) / "ema").is_dir():
            del wanted["ema"]
        if no_count := self.format(step) == 1:
            del wanted["optimizer"]["skipped"]
        trees = self.restore(step, wanted)
        if no_average:  # A copy, because a step donates each array.
            trees["ema"] = jax.tree.map(jnp.copy, trees["params"])
        if no_count:
            trees["optimizer"]["skipped"] = jax.jit(lambda: jnp.int32(0), out_shardings=place)()
        return TrainState.restored(trees, abstract)

    def leaves(self, step: int, name: str) -> "Leaves":
        """Returns one of the trees, to be read array by array."""
        return Leaves(self._folder(step) / self._item_name(step, name))

    def wait(self) -> None:
        """Waits until every save is on disk; raises if one failed."""
        self._manager.wait_until_finished()
        self._manager.check_for_errors()

    def close(self) -> None:
        """Waits for the saves, then ends the background threads."""
        self.wait()
        self._manager.close()

    def _folder(self, step: int) -> pathlib.Path:
        return pathlib.Path(self._manager.directory) / str(step)

    def _item_name(self, step: int, name: str) -> str:
        old = self.format(step) == 1
        return MODEL_STATE_OF_FORMAT_1 if old and name == "model_state" else name


def _this_process() -> ocp.options.MultiprocessingOptions:
    process = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=process,
        active_processes={process},
        barrier_sync_key_prefix=f"process{process}",
    )


class Leaves:
    """A saved tree whose arrays are read one at a time, so that it may exceed the memory.

    Attributes:
      shapes: shape of each array by name, the parts of its path joined by "/".
    """

    def __init__(self, folder: pathlib.Path):
        """Reads names and shapes, but no array yet."""
        self._folder, self._reader = folder, ocp.PyTreeCheckpointHandler()
        self._tree = self._reader.metadata(epath.Path(folder)).tree
        self.shapes: dict[str, tuple[int, ...]] = {
            leaf_name(path): tuple(leaf.shape)
            for path, leaf in jax.tree_util.tree_leaves_with_path(self._tree)
        }

    def __getitem__(self, wanted: str) -> np.ndarray:
        """Returns one array, in the memory of this host.

        Raises:
          UsageError: the array cannot be read.
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
        try:
            found = self._reader.restore(epath.Path(self._folder), args=alone)
        except (ValueError, OSError) as error:
            raise UsageError(
                f"{self._folder}: {wanted} cannot be read; the checkpoint is damaged or "
                f"incomplete: {error}"
            ) from error
        for key in path:
            found = found[_plain(key)]
        return found

    def _others_as_placeholders(self, wanted: Any, as_numpy: ocp.RestoreArgs) -> Any:
        item = jax.tree_util.tree_map_with_path(
            lambda path, _: 0 if path == wanted else ocp.PLACEHOLDER, self._tree
        )
        restore_args = jax.tree.map(lambda _: as_numpy, self._tree)
        return ocp.args.PyTreeRestore(item=item, restore_args=restore_args)


def _nested(path: Any, leaf: Any) -> Any:
    """Returns a tree of dictionaries with one leaf, at the end of a path."""
    for key in reversed(path):
        leaf = {_plain(key): leaf}
    return leaf


def _plain(key: Any) -> Any:
    """Returns the key or the index that one step of a path takes."""
    return key.idx if isinstance(key, jax.tree_util.SequenceKey) else key.key
