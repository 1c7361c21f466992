"""Segmentation: the class of each pixel of an image (ADE20K; UPerNet as in BEiT)."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

import jax

from vlbeit_jax.config.finetune import MasksConfig
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.config.schema import AT_LEAST_0, OPEN_SHARE, Bound, one_of, section, setting
from vlbeit_jax.data.examples.segmented import segmented_specs
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.convolutions import BATCH, GROUP
from vlbeit_jax.models.heads.upernet import UPerConfig, default_taps
from vlbeit_jax.models.segmenter import Segmenter
from vlbeit_jax.objectives.segmentation import Segmentation as Loss
from vlbeit_jax.shapes import Tree
from vlbeit_jax.tasks import base
from vlbeit_jax.tasks.assets import classes_of, read_classes
from vlbeit_jax.tasks.backbone_start import backbone_start
from vlbeit_jax.tasks.open_segmentation import IMAGE, OpenSegmentation
from vlbeit_jax.tasks.text_problems import padding_problems
from vlbeit_jax.training.warm_start import WarmStart
from vlbeit_jax.types import Kind, Modality

TAPS = 4
MOST_CLASSES = 255  # 255 itself means that a pixel does not count.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segmentation:
    """The task; see ``tasks.base.Task``.

    Attributes:
      class_names: in the order of the logits, as ``resolve`` or ``open`` finds them.
    """

    kind: ClassVar[str] = "segmentation"
    schedule: ClassVar[str] = IMAGE

    model: ModelConfig = section(
        lambda: ModelConfig(image_size=512, drop_path=0.15), "Multiway Transformer"
    )
    image: MasksConfig = section(MasksConfig, "images with the class of each pixel")
    classes: int = setting(
        0,
        "number of classes; 0: as many as the first source has",
        Bound(f"in [0, {MOST_CLASSES}]", lambda value: 0 <= value <= MOST_CLASSES),
    )
    head_width: int = setting(0, "width of UPerNet's maps; 0: as the model's", AT_LEAST_0)
    pools: tuple[int, ...] = setting(
        (1, 2, 3, 6), "parts along a side over which UPerNet averages its last map"
    )
    taps: tuple[int, ...] = setting(
        (), "four blocks, counted from 0, whose states the head takes; empty: 3, 5, 7, 11 of 12"
    )
    norm: str = setting(
        GROUP,
        "the head normalises each row alone (group), or over the batch of all devices (batch)",
        one_of(GROUP, BATCH),
    )
    auxiliary: float = setting(
        0.4, "weight of the auxiliary head's loss; 0: no such head", AT_LEAST_0
    )
    dropout: float = setting(0.1, "dropped share of the head's last channels", OPEN_SHARE)
    class_names: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """Number of logits.

        Raises:
          UsageError: nothing tells it.
        """
        count = self.classes or len(self.class_names)
        if not count:
            raise UsageError("task.classes=0: without data, set the number of classes")
        return count

    @property
    def no_averages(self) -> str:
        """Why averaged parameters make no sense: with BatchNorm, statistics fit the raw ones."""
        if self.norm != BATCH:
            return ""
        return (
            "averaged parameters would be normalised by the statistics of the raw ones; set it to "
            "0, or config.task.norm=group"
        )

    @property
    def network(self) -> Segmenter:
        """Backbone and head."""
        upernet = UPerConfig(
            classes=self.num_classes,
            width=self.head_width or self.model.width,
            pools=self.pools,
            norm=self.norm,
            auxiliary=bool(self.auxiliary),
        )
        return Segmenter(self.model, upernet, self.taps or default_taps(self.model.depth))

    def problems(self) -> Iterable[str]:
        """See ``tasks.base.Task``."""
        if self.classes == 1:
            yield "classes=1: must be at least 2, or 0"
        if self.taps and (len(self.taps) != TAPS or not self._taps_exist()):
            yield f"taps={self.taps}: must be {TAPS} numbers from 0 to {self.model.depth - 1}"
        if any(bins < 1 for bins in self.pools):
            yield f"pools={self.pools}: must be > 0"
        if self.model.patch_size and 0 < self.model.grid < 2:
            yield (
                f"model.image_size={self.model.image_size} must be at least twice "
                f"model.patch_size={self.model.patch_size}"
            )

    def _taps_exist(self) -> bool:
        return all(0 <= block < self.model.depth for block in self.taps)

    def training_problems(self) -> Iterable[str]:
        """See ``tasks.base.Task``."""
        yield from self.image.training_problems(IMAGE)
        yield from padding_problems(self.model)

    def resolve(self) -> "Segmentation":
        """Returns the task with the names of the classes, from the first source.

        Raises:
          UsageError: the source is missing or of another kind, or has another number of classes
            than the setting.
        """
        names = classes_of(self.image.sources[0], Kind.MASKS, self.classes)
        return dataclasses.replace(self, class_names=names)

    def init(self, key: jax.Array) -> Tree:
        """Returns the parameters, boxed with their ``ParamInfo``."""
        return self.network.init(key, method="init_all")["params"]

    def streams(self) -> Mapping[str, base.Stream]:
        """Returns the stream of images with masks."""
        return {
            IMAGE: base.Stream(
                objective=Loss(self.network, self.auxiliary, self.dropout),
                example=segmented_specs(self.model.image_size),
                batch_size=self.image.batch_size,
                tokens=self.model.patches + 1,
            )
        }

    def frozen(self) -> Tree:
        """Returns nothing: all parameters are trained."""
        return {}

    def warm_start(self) -> WarmStart:
        """Returns rules for any run with this backbone: the head is new."""
        return backbone_start(self.model, (Modality.VISION,), fresh=("head/*",))

    def open(self, folder: Path | None = None) -> OpenSegmentation:
        """Opens the list of classes that the sources or a run's folder hold.

        Raises:
          UsageError: a run's list cannot be read.
        """
        task = dataclasses.replace(self, class_names=read_classes(folder)) if folder else self
        return OpenSegmentation(task)
