"""Images and texts with a class: the examples of classification."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vlbeit_jax.config.finetune import LabelledImagesConfig
from vlbeit_jax.data import image as images
from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.erasing import erased_box
from vlbeit_jax.data.examples.base import ROW_SPECS, Example, Spec, row_fields
from vlbeit_jax.data.examples.images import pixels_of, random_view_of
from vlbeit_jax.data.rand_augment import VARIANTS
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.shapes import UInt8


@dataclasses.dataclass(frozen=True)
class LabelledImage:
    """An image of fixed size and the number of its class.

    Attributes:
      images: how it is augmented in training and cut in evaluation.
      size: side of the image, pixels.
      classes: names in order; empty: the label is left out, for prediction.
      augment: for training.
    """

    images: LabelledImagesConfig
    size: int
    classes: tuple[str, ...]
    augment: bool

    def __call__(self, record: Mapping[str, Any], draws: Draws) -> Example:
        """Returns ``image``, ``label``, and in training the box ``erase`` if there is erasing.

        In training, a random crop is flipped, then changed by RandAugment. The order of the draws
        (crop, flip, operations, box) is part of what a seed reproduces.
        """
        example = row_fields(record) | _label(record, self.classes)
        if not self.augment:
            view = evaluation_view(pixels_of(record), self.size, self.images)
            return example | {"image": view}
        # timm switches colour jitter off when RandAugment is on.
        how = images.RandomView(self.size, self.images.crop_scale, 0.0, self.images.flip)
        view = random_view_of(record, draws, how)
        if policy := VARIANTS[self.images.rand_augment]:
            view = policy(draws, view)
        example["image"] = view
        if self.images.erase:
            example["erase"] = erased_box(draws, self.size, self.images.erase)
        return example


@dataclasses.dataclass(frozen=True)
class LabelledText:
    """A text as a row of word pieces, and the number of its class.

    Attributes:
      tokenizer: of the text.
      length: word pieces of a row, CLS and SEP included; longer texts are cut.
      classes: as in ``LabelledImage``.
    """

    tokenizer: TextTokenizer
    length: int
    classes: tuple[str, ...]

    def __call__(self, record: Mapping[str, Any], draws: Draws) -> Example:
        """Returns ``text`` and ``label``."""
        row = self.tokenizer.encode_row(as_text(record["text"]), self.length)
        return row_fields(record) | _label(record, self.classes) | {"text": row}


def labelled_image_specs(settings: LabelledImagesConfig, size: int) -> dict[str, Spec]:
    """Returns the shapes and types of a ``LabelledImage`` in training."""
    specs = ROW_SPECS | {
        "image": Spec((size, size, 3), np.uint8),
        "label": Spec((), np.int32),
    }
    return specs | ({"erase": Spec((4,), np.int32)} if settings.erase else {})


def labelled_text_specs(length: int) -> dict[str, Spec]:
    """Returns the shapes and types of a ``LabelledText``."""
    return ROW_SPECS | {"text": Spec((length,), np.int32), "label": Spec((), np.int32)}


def evaluation_view(
    pixels: UInt8[np.ndarray, "height width 3"], size: int, settings: LabelledImagesConfig
) -> UInt8[np.ndarray, "size size 3"]:
    """Returns what evaluation and prediction see of an image."""
    if settings.view == "squash":
        return images.squashed_view(pixels, size)
    return images.zoomed_view(pixels, size, settings.crop_share)


def as_text(value: str | bytes) -> str:
    """Returns a record's string; TFDS reads strings as bytes."""
    return value.decode() if isinstance(value, bytes) else value


def _label(record: Mapping[str, Any], classes: Sequence[str]) -> Example:
    if not classes:
        return {}
    return {"label": np.int32(classes.index(as_text(record["label"])))}
