"""Checkpoints: asynchronous, atomic, and sealed with digests."""

import contextlib
import functools
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from vlbeit_jax.places import place, settle
from vlbeit_jax.shapes import Tree
from vlbeit_jax.storage import explains_storage, require_right_to_write
from vlbeit_jax.training.complete_steps import complete_steps, remove_unfinished
from vlbeit_jax.training.leaves import Leaves, ignore_abandoned_work
from vlbeit_jax.training.saved_step import DESCRIPTION, FORMAT, SavedStep
from vlbeit_jax.training.sealed import sealed
from vlbeit_jax.training.state import SAVED_REFUSED, TrainState

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

        All processes of a run must open and save together, unless they open with ``read_only`` or
        ``alone``.

        Args:
          folder: of the checkpoints.
          keep_last: number of newest steps to keep.
          keep_every: multiples of this step are kept as well; 0 for none.
          read_only: only reads, in this process.
          alone: this process saves by itself.
        """
        self._place, self._alone = place(folder).resolve(), alone
        multiples = [_policies.EveryNSteps(keep_every)] if keep_every else []
        self._keep: list[Any] = [_policies.LatestN(keep_last), *multiples]
        self._saving = self._failed = False
        if not read_only:
            self._place.mkdir(parents=True, exist_ok=True)
            if alone or jax.process_index() == 0:
                require_right_to_write(self._place)
                remove_unfinished(self._place)

    @functools.cached_property
    def _manager(self) -> ocp.CheckpointManager:
        # Made with the first save, since it starts threads and reads which steps there are.
        ignore_abandoned_work()
        processes = ocp.options.MultiprocessingOptions()
        return ocp.CheckpointManager(
            self._place,
            options=ocp.CheckpointManagerOptions(
                multiprocessing_options=_this_process() if self._alone else processes,
                preservation_policy=_policies.AnyPreservationPolicy(self._keep),
                # Nobody writes before process 0 has made the folders. Otherwise it takes what
                # another process has written for the rest of an interrupted save, and removes it.
                async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
                create=False,
            ),
        )

    def save(self, step: int, trees: Mapping[str, Tree], description: Mapping[str, Any]) -> None:
        """Starts a save and returns once the arrays are copied.

        Args:
          step: of the checkpoint.
          trees: arrays, by name.
          description: JSON values; format, digests and seal are added.

        Raises:
          Diverged: an array is of no use; the step is not saved. Every process raises it.
          StorageError: the save before has failed, or this one cannot begin.
        """
        chunked = ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES)
        items: dict[str, Any] = {
            name: ocp.args.PyTreeSave(tree, save_args=jax.tree.map(lambda _: chunked, tree))
            for name, tree in trees.items()
        }
        said = sealed({"format": FORMAT, **description}, trees)
        items[DESCRIPTION] = ocp.args.JsonSave(said)
        with self._reporting():
            settle()  # Steps that are saved are not taken again, so their figures must not be lost.
            self._manager.save(step, args=ocp.args.Composite(**items), force=True)
            self._saving = True

    def steps(self) -> list[int]:
        """Returns the complete steps, oldest first."""
        if not self._place.is_dir():
            return []
        return complete_steps(self._place)

    def latest(self) -> int | None:
        """Returns the newest complete step; None if there is none."""
        steps = self.steps()
        return steps[-1] if steps else None

    def step(self, step: int) -> SavedStep:
        """Returns a step to be read."""
        return SavedStep(self._place / str(step))

    def describe(self, step: int) -> dict[str, Any]:
        """Returns the description that was saved with a step.

        Raises:
          Damaged: it cannot be read, or is not what was saved.
        """
        return self.step(step).description

    def format(self, step: int) -> int:
        """Returns the format of a checkpoint.

        Raises:
          UsageError: a newer version of this package wrote it.
        """
        saved = self.step(step)
        saved.require_known_format()
        return saved.format

    def restore(self, step: int, abstract: Mapping[str, Tree]) -> dict[str, Tree]:
        """Returns trees of a step, with the shapes, types and shardings of ``abstract``.

        Raises:
          Damaged: the step cannot be read, or is not what was saved.
          UsageError: it holds other arrays; the message lists every difference.
        """
        saved = self.step(step)
        return saved.checked(saved.read(abstract), abstract)

    def restore_state(self, step: int, abstract: TrainState) -> TrainState:
        """Returns the state of a run, with the shapes, types and shardings of ``abstract``."""
        reading = StateReading(self.step(step), abstract)
        reading.read()
        return reading.checked()

    def leaves(self, step: int, name: str) -> Leaves:
        """Returns one of the trees, to be read array by array."""
        return self.step(step).leaves(name)

    def check(self) -> bool:
        """Returns whether every save is on disk; does not wait for one that goes on.

        Raises:
          StorageError: one has failed.
        """
        if self._saving and self._manager.is_saving_in_progress():
            return False
        return self.wait()

    def wait(self) -> bool:
        """Waits until every save is on disk; returns True.

        Raises:
          StorageError: one has failed.
        """
        if self._saving and not self._failed:
            with self._reporting():
                self._manager.wait_until_finished()
                self._manager.check_for_errors()
        return True

    def close(self) -> None:
        """Waits for the saves, then ends the background threads."""
        self.wait()
        # After a failure, which has been reported, Orbax would report it again.
        if self._saving and not self._failed:
            self._manager.close()

    def look_again(self) -> None:
        """Waits for the saves, and forgets which steps there are: some were moved."""
        self.close()
        self.__dict__.pop("_manager", None)

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """Reports a failed save in one message, and notes that it failed."""
        try:
            with explains_storage(self._place):
                yield
        except Exception:
            self._failed = True
            raise


class StateReading:
    """Reads the state of a run in two parts, between which processes compare what they found."""

    def __init__(self, step: SavedStep, abstract: TrainState):
        """If the step lacks averaged parameters that the run wants, they start at the parameters.

        Args:
          step: to read.
          abstract: shapes, types and shardings of the state.
        """
        self._step, self._abstract = step, abstract
        self._wanted: dict[str, Tree] = {}
        self._trees: dict[str, Tree] = {}
        self._no_average = self._no_count = False

    def read(self) -> None:
        """Reads this process's part; waits for no other process.

        Raises:
          Damaged: something cannot be read.
          UsageError: it is the state of another run.
        """
        self._wanted = self._abstract.saved()
        # What the step lacks is not asked for; ``checked`` adds it.
        self._no_average = self._abstract.ema is not None and not self._step.has("ema")
        if self._no_average:
            del self._wanted["ema"]
        self._step.require_known_format()
        self._no_count = self._step.format == 1  # Of refused steps.
        if self._no_count:
            del self._wanted["optimizer"][SAVED_REFUSED]
        self._trees = self._step.read(self._wanted, exact=True)

    def checked(self) -> TrainState:
        """Returns the state after its digests are checked, by all processes together.

        Raises:
          Damaged: an array is not what was saved. Every process raises it.
        """
        trees = self._step.checked(self._trees, self._wanted)
        if self._no_average:  # A copy, because a step donates each array.
            trees["ema"] = jax.tree.map(jnp.copy, trees["params"])
        if self._no_count:
            place = self._abstract.refused.sharding
            trees["optimizer"][SAVED_REFUSED] = jax.jit(lambda: jnp.int32(0), out_shardings=place)()
        return TrainState.restored(trees, self._abstract)


def _this_process() -> ocp.options.MultiprocessingOptions:
    process = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=process,
        active_processes={process},
        barrier_sync_key_prefix=f"process{process}",
    )
