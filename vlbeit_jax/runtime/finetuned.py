"""Evaluates a fine-tuned run, and predicts with it."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from vlbeit_jax.data.class_names import ClassTexts
from vlbeit_jax.data.identity import KEYS, SPLITS, TEST, TRAIN, VALIDATION
from vlbeit_jax.data.keys import common
from vlbeit_jax.data.records import Records
from vlbeit_jax.data.shard import HostShard
from vlbeit_jax.data.source import PreparedSet, open_sets_once
from vlbeit_jax.data.splits import STARTED_FROM, example, read_seen, seen_records
from vlbeit_jax.errors import UsageError
from vlbeit_jax.runtime.versions import versions
from vlbeit_jax.shapes import Tree
from vlbeit_jax.tasks import Config
from vlbeit_jax.tasks.base import FineTuned, Place
from vlbeit_jax.tasks.zero_shot import ComparesClasses, classifier, evaluate_classes
from vlbeit_jax.training.mesh import put_replicated
from vlbeit_jax.training.saved_run import (
    START_FILE,
    has_tree,
    read_newest,
    restore,
    tree_fingerprint,
)
from vlbeit_jax.types import Kind

RAW, EMA = "raw", "ema"
_TREES = {RAW: "params", EMA: "ema"}


@dataclasses.dataclass(frozen=True)
class FineTunedRun:
    """A fine-tuned run with its newest parameters.

    Attributes:
      folder: of the run.
      config: of the run.
      opened: its task.
      params: on the first device.
      step: steps taken.
      weights: "raw", or "ema" for averaged ones.
    """

    folder: pathlib.Path
    config: Config
    opened: FineTuned
    params: Tree
    step: int
    weights: str
    _on_meshes: dict[Mesh, Tree] = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def open(
        cls,
        folder: pathlib.Path,
        config: Config,
        opened: FineTuned,
        weights: str = RAW,
        step: int = 0,
    ) -> "FineTunedRun":
        """Reads a checkpoint.

        Args:
          folder: of the run.
          config: of the run.
          opened: its task, opened from the folder.
          weights: "raw" or "ema".
          step: to read, and no other; 0: the newest one that is not damaged.

        Raises:
          Damaged: this step cannot be read, or none can.
          UsageError: there is no checkpoint yet, or it has no averaged parameters.
        """
        tree, moved = _TREES[weights], opened.abstract_model_state()
        shapes = {tree: opened.abstract_params()} | ({"model_state": moved} if moved else {})

        def read(step: int) -> dict[str, Tree]:
            if weights == EMA and not has_tree(folder, step, tree):
                raise UsageError(
                    f"the run in {folder} has no averaged parameters; evaluate the raw ones, or "
                    "train with config.optimizer.ema_decay"
                )
            return restore(folder, step, shapes)

        step, trees = read_newest(folder, read, step)
        params = opened.for_inference(trees[tree], trees.get("model_state", {}))
        return cls(folder, config, opened, params, step, weights)

    def place(self, mesh: Mesh) -> Place:
        """Returns where this process evaluates."""
        return Place(self.config.run, self.config.loader, mesh, HostShard())

    def evaluate(
        self, places: Sequence[str], split: str, mesh: Mesh, classes: ClassTexts | None = None
    ) -> dict[str, Any]:
        """Returns figures with all that they depend on, ready for JSON.

        Args:
          places: folders of prepared sets.
          split: to evaluate; empty: test if all sets have it, otherwise validation.
          mesh: devices.
          classes: of labelled pictures, which are then classified zero-shot; None: evaluate what
            the run was trained for.

        Raises:
          UsageError: a set is missing, of another kind, empty in this split, or holds what the run
            was trained on; or the run cannot classify zero-shot.
        """
        kind = Kind.LABELLED_IMAGES if classes else self.opened.kind
        sets = open_sets_once(places, kind)
        split = split or (TEST if all(each.count(TEST) for each in sets) else VALIDATION)
        self._require_unseen(sets, split)
        params, place = self._params_on(mesh), self.place(mesh)
        if classes:
            compares = self._compares_classes()
            results = evaluate_classes(compares, params, sets, split, classes, place)
        else:
            results = self.opened.evaluate(params, sets, split, place)
        protocol = results.pop("protocol") | {
            "task": self.config.task.kind,
            "split": split,
            "weights": self.weights,
            "step": self.step,
            "weights_fingerprint": tree_fingerprint(jax.device_get(self.params)),
            "seed": self.config.run.seed,
            "device": jax.devices()[0].device_kind,
            "versions": versions(),
        }
        data = [self._described(each, split) for each in sets]
        return results | {"protocol": protocol, "data": data, "start": self._start()}

    def predict(self, records: Records, top: int, mesh: Mesh) -> Iterator[dict[str, Any]]:
        """Yields a prediction per record; see ``FineTuned.predict``."""
        return self.opened.predict(self._params_on(mesh), records, top, self.place(mesh))

    def classifier(
        self, classes: ClassTexts, top: int, mesh: Mesh
    ) -> Callable[[Records], Iterator[dict[str, Any]]]:
        """Returns what gives each record the class of its picture; see ``zero_shot.classifier``.

        Raises:
          UsageError: the run was not fine-tuned for retrieval.
        """
        compares, params = self._compares_classes(), self._params_on(mesh)
        return classifier(compares, params, classes, top, self.place(mesh))

    def _params_on(self, mesh: Mesh) -> Tree:
        """Returns the parameters on the devices of a mesh. They are copied there once.

        A command predicts for a few hundred records at a time, and ``vlbeit_jax.load`` for as many
        as it is called with.
        """
        if mesh not in self._on_meshes:
            self._on_meshes[mesh] = put_replicated(self.params, mesh)
        return self._on_meshes[mesh]

    def _compares_classes(self) -> ComparesClasses:
        if not isinstance(self.opened, ComparesClasses):
            raise UsageError(
                f"{self.folder} holds a run of task {self.config.task.kind!r}, but only a run of "
                "retrieval compares pictures with the names of classes; leave out --classes, or "
                "give such a run"
            )
        return self.opened

    def _require_unseen(self, sets: Sequence[PreparedSet], split: str) -> None:
        if split == TRAIN:  # Asked for: how well the model knows what it was trained on.
            return
        seen = read_seen(self.folder)
        for each in sets:
            what, both = seen_records(each, split, seen)
            if what:
                raise UsageError(
                    f"the {split} part of {each.folder} holds {both.shape[1]} {what} that the run "
                    f"was trained on ({example(each, split, both)}), so its figures would be of "
                    "seen data; prepare it again with --apart_from=SET for each set that the run "
                    "was trained on"
                )

    def _described(self, each: PreparedSet, split: str) -> dict[str, Any]:
        return {
            "folder": str(each.folder),
            "kind": each.kind,
            "fingerprint": each.fingerprint,
            "records": each.count(split),
            "seen_by_start": self._seen_by_start(each),
        }

    def _seen_by_start(self, each: PreparedSet) -> dict[str, dict[str, int]]:
        """Counts pictures and texts of each split that the start was trained on."""
        if not (self.folder / STARTED_FROM).is_dir():
            return {}
        seen = read_seen(self.folder, STARTED_FROM)
        return {
            split: {what: common(each.keys(what, split), seen[what]).shape[1] for what in KEYS}
            for split in SPLITS
            if each.count(split)
        }

    def _start(self) -> dict[str, Any] | None:
        """Returns what the run started from; None for random parameters."""
        path = self.folder / START_FILE
        if not path.is_file():
            return None
        start = json.loads(path.read_text())
        told = ("from", "step", "weights", "trained_on", "imported_from")
        return {name: start[name] for name in told}
