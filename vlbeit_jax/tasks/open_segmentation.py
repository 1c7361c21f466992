"""Segmentation with its classes: data, evaluation, predictions and pictures of them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np

from vlbeit_jax.config.common import RunConfig
from vlbeit_jax.config.parse import fingerprint
from vlbeit_jax.data.examples.images import pixels_of
from vlbeit_jax.data.examples.segmented import SegmentedImage, mask_of
from vlbeit_jax.data.masks import indexed_png, overlay
from vlbeit_jax.data.records import ConcatRecords, Records
from vlbeit_jax.data.source import VALIDATION, PreparedSet
from vlbeit_jax.errors import UsageError
from vlbeit_jax.metrics.segmentation import IGNORED, Pixels, counts, interval, iou, joined, summary
from vlbeit_jax.objectives.segmentation import SEGMENT, Segmentation, with_statistics
from vlbeit_jax.ops.windows import LONGEST
from vlbeit_jax.shapes import Tree
from vlbeit_jax.tasks.assets import write_classes
from vlbeit_jax.tasks.base import Place
from vlbeit_jax.tasks.figures import Headline
from vlbeit_jax.tasks.one_stream import OneStreamData, open_sets
from vlbeit_jax.tasks.open_fine_tuned import OpenFineTuned, best_of, groups_of
from vlbeit_jax.tasks.segmenting import Windows, segmented
from vlbeit_jax.training.state import TrainState
from vlbeit_jax.types import Kind

IMAGE = "image"  # The one stream.


class OpenSegmentation(OpenFineTuned):
    """A task with a class for each pixel; see ``OpenFineTuned``."""

    kind = Kind.MASKS
    method = "segment"
    needs = frozenset({"image"})
    headlines = (
        Headline(f"{SEGMENT}/miou", "mIoU", share=True, baseline=f"{SEGMENT}/miou_majority"),
    )

    def __init__(self, task: Any):
        """Takes a ``tasks.segmentation.Segmentation`` with names of classes."""
        super().__init__(task, None)
        self._loss = Segmentation(task.network)
        stride = task.image.stride or 2 * task.model.image_size // 3
        self.windows = Windows(task.model.image_size, stride if task.image.view == "slide" else 0)

    @property
    def fingerprints(self) -> dict[str, Any]:
        """Of the list of classes."""
        return {"classes": fingerprint(list(self.task.class_names))}

    def abstract_model_state(self) -> Tree:
        """Returns the shapes of BatchNorm's running statistics; empty without BatchNorm."""
        shapes = jax.eval_shape(self._loss.init_model_state)
        return {IMAGE: shapes} if shapes else {}

    def for_inference(self, params: Tree, model_state: Tree) -> Tree:
        """Returns the parameters with BatchNorm's running statistics."""
        return with_statistics(params, model_state.get(IMAGE, {}))

    def save_assets(self, folder: Path) -> None:
        """Writes the list of classes into a run."""
        write_classes(folder, self.task.class_names)

    def training_data(self, run: RunConfig) -> OneStreamData:
        """Opens the sets of masks.

        Raises:
          UsageError: one is missing, of another kind, or has other classes.
        """
        task = self.task
        sets = open_sets(task.image, [self.kind], run)
        self.require_classes(sets)
        transform = SegmentedImage(task.image, task.model.image_size)
        return OneStreamData(IMAGE, task.image, sets, transform, run.seed)

    def require_classes(self, sets: Sequence[PreparedSet]) -> None:
        """Checks that all sets have the model's classes, in its order.

        Raises:
          UsageError: one has others: its numbers mean something else.
        """
        for each in sets:
            names = tuple(each.meta["classes"])
            if names != self.task.class_names:
                pairs = zip(names, self.task.class_names, strict=False)
                first = next((i for i, (own, known) in enumerate(pairs) if own != known), None)
                differ = (
                    ""
                    if first is None
                    else (
                        f"; class {first} is {names[first]!r} there and "
                        f"{self.task.class_names[first]!r} here"
                    )
                )
                raise UsageError(
                    f"{each.folder} has {len(names)} classes, the model "
                    f"{len(self.task.class_names)}{differ}; prepare it with the same --classes as "
                    "the set that the model was trained on"
                )

    def evaluate(
        self, params: Tree, sets: Sequence[PreparedSet], split: str, place: Place
    ) -> dict[str, Any]:
        """Returns mIoU and accuracies on a split of some sets, by class too, and the protocol.

        Args:
          params: on the devices, for inference.
          sets: of masks.
          split: of each set.
          place: devices.
        """
        self.require_classes(sets)
        records = ConcatRecords([each.records(split) for each in sets])
        pixels, groups = self._pixels(params, records, place), groups_of(records)
        metrics = summary(pixels) | {"miou_interval": list(interval(pixels, groups))}
        return {
            "metrics": metrics,
            "by_class": self._by_class(pixels),
            "groups": len(np.unique(groups)),
            "protocol": {
                "metric": "mean over classes of intersection over union, from one confusion matrix "
                "of all pixels; classes that occur in no mask and no prediction are left out",
                "ignored": f"pixels with {IGNORED} in the mask",
                "size": "logits are resized to the picture, masks never",
                "interval": "95%, bootstrap over groups of pictures",
                "classes": self.fingerprints["classes"],
                "image_size": self.task.model.image_size,
                "view": self._view(),
            },
        }

    def predict(
        self, params: Tree, records: Records, top: int, place: Place
    ) -> Iterator[dict[str, Any]]:
        """Yields the class of each pixel as ``mask``, an array, and the largest classes.

        Args:
          params: on the devices, for inference.
          records: with ``id`` and ``image``.
          top: classes to list with their shares of the picture.
          place: devices.
        """
        names = self.task.class_names
        for mask in self._masks(params, records, place):
            shares = np.bincount(mask.ravel(), minlength=len(names)) / mask.size
            listed = best_of(names, shares, top)
            yield {"mask": mask, "classes": [each for each in listed if each[1]]}

    def pictures(
        self, record: Mapping[str, Any], prediction: Mapping[str, Any]
    ) -> dict[str, bytes]:
        """Returns PNG files of a prediction: the indexed mask, and the picture under its colours.

        Args:
          record: with ``image``.
          prediction: of ``predict``.
        """
        shown = overlay(pixels_of(record), prediction["mask"])[..., ::-1]
        return {
            "mask": indexed_png(prediction["mask"]),
            "overlay": cv2.imencode(".png", shown)[1].tobytes(),
        }

    def _view(self) -> str:
        side, stride = self.windows.side, self.windows.stride
        if not stride:
            return "whole: the picture as a square"
        return (
            f"windows of {side}, stride {stride}, logits averaged; the shorter side is {side}, the "
            f"longer one at most {LONGEST * side}"
        )

    def _masks(
        self, params: Tree, records: Records, place: Place, pictures: int = 0
    ) -> Iterator[np.ndarray]:
        size = self.task.image.batch_size
        return segmented(
            self._loss.logits, params, records, self.windows, size, place, pictures=pictures
        )

    def _pixels(self, params: Tree, records: Records, place: Place, pictures: int = 0) -> Pixels:
        classes = self.task.num_classes
        masks = enumerate(self._masks(params, records, place, pictures))
        return joined([counts(mask_of(records[i]), mask, classes) for i, mask in masks], classes)

    def _by_class(self, pixels: Pixels) -> dict[str, dict[str, float]]:
        """Returns the figures of each class that occurs in a mask."""
        right, truth, _ = (part.sum(axis=0) for part in pixels)
        shares = iou(pixels)
        return {
            name: {
                "accuracy": float(right[index] / truth[index]),
                "iou": float(shares[index]),
                "count": int(truth[index]),
            }
            for index, name in enumerate(self.task.class_names)
            if truth[index]
        }

    def _evaluate_state(
        self, held_out: PreparedSet, place: Place, state: TrainState, frozen: Tree
    ) -> dict[str, float]:
        records = held_out.records(VALIDATION)
        params = self.for_inference(state.params, state.model_state)
        most = place.run.evaluate_batches * self.task.image.batch_size
        pixels = self._pixels(params, records, place, most)
        return {f"{SEGMENT}/{name}": value for name, value in summary(pixels).items()}
