"""Fine-tuning for the classification of images."""

import dataclasses
from pathlib import Path
from typing import ClassVar

from vlbeit_jax.config.finetune import LabelledImagesConfig
from vlbeit_jax.config.schema import section
from vlbeit_jax.data.examples.base import Spec
from vlbeit_jax.data.examples.labelled import LabelledImage, labelled_image_specs
from vlbeit_jax.objectives.mixing import Mixing
from vlbeit_jax.tasks.assets import read_classes
from vlbeit_jax.tasks.classification import Classification
from vlbeit_jax.tasks.open_classification import OpenClassification
from vlbeit_jax.types import Kind, Modality


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageClassification(Classification):
    """The task; see ``tasks.base.Task``."""

    kind: ClassVar[str] = "image_classification"
    modality: ClassVar[Modality] = Modality.VISION
    records: ClassVar[Kind] = Kind.LABELLED_IMAGES

    image: LabelledImagesConfig = section(LabelledImagesConfig, "images with a class")

    @property
    def schedule(self) -> str:
        """The only stream, in every step."""
        return "image"

    def mixing(self) -> Mixing:
        """Returns how images are mixed in training."""
        return Mixing(self.image.mixup, self.image.cutmix)

    def example_specs(self) -> dict[str, Spec]:
        """Returns the shapes and types of a training row."""
        return labelled_image_specs(self.image, self.model.image_size)

    def row_tokens(self) -> int:
        """Returns the tokens of a row: patches and CLS."""
        return self.model.patches + 1

    def make_example(self, *, augment: bool, labelled: bool = True) -> LabelledImage:
        """Returns how records become examples."""
        names = self.class_names if labelled else ()
        return LabelledImage(self.image, self.model.image_size, names, augment)

    def open(self, folder: Path | None = None) -> OpenClassification:
        """Opens the list of classes that the sources or a run's folder hold.

        Raises:
          UsageError: a run's list cannot be read.
        """
        task = dataclasses.replace(self, class_names=read_classes(folder)) if folder else self
        protocol = {
            "image_size": self.model.image_size,
            "view": self.image.view,
            "crop_share": self.image.crop_share if self.image.view == "crop" else None,
        }
        return OpenClassification(task, task.make_example, protocol)
