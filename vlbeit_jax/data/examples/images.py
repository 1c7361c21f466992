"""The image of a record as one view: a crop of fixed size, augmented or not."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from vlbeit_jax.config.streams import ViewStreamConfig
from vlbeit_jax.data import image as images
from vlbeit_jax.data.bad_records import NOT_AN_IMAGE, decoding
from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.examples.base import ROW_SPECS, Example, Spec, record_id, row_fields
from vlbeit_jax.shapes import UInt8


@dataclasses.dataclass(frozen=True)
class Views:
    """Chooses and computes a view of a record's image.

    Attributes:
      stream: augmentation, and the number of fixed views (0: a new view every time).
      size: side of the view, pixels.
      augment: random views, for training; otherwise the centre, for evaluation.
    """

    stream: ViewStreamConfig
    size: int
    augment: bool

    def __call__(
        self, record: Mapping[str, Any], draws: Draws
    ) -> tuple[UInt8[np.ndarray, "size size 3"], int]:
        """Returns a view, and its number among the fixed views (0 if there are none)."""
        if not self.augment:
            return images.centre_view(pixels_of(record), self.size), 0
        if self.stream.views:
            number = draws.below(self.stream.views)
            return self.fixed(record, number), number
        return self._random(record, draws), 0

    def fixed(self, record: Mapping[str, Any], number: int) -> UInt8[np.ndarray, "size size 3"]:
        """Returns fixed view ``number`` of a record.

        It depends on the record's id and on the number alone. So the visual tokens that are cached
        for it serve every run, whatever its seed.
        """
        return self._random(record, Draws("view", record_id(record), number))

    def _random(self, record: Mapping[str, Any], draws: Draws) -> UInt8[np.ndarray, "size size 3"]:
        stream = self.stream
        how = images.RandomView(self.size, stream.crop_scale, stream.colour_jitter, stream.flip)
        return random_view_of(record, draws, how)


@dataclasses.dataclass(frozen=True)
class ImageExample:
    """A record's image without labels or masks."""

    views: Views

    def __call__(self, record: Mapping[str, Any], draws: Draws) -> Example:
        """Returns ``image``, ``weight`` and ``uid``."""
        view, _ = self.views(record, draws)
        return row_fields(record) | {"image": view}


def image_specs(size: int) -> dict[str, Spec]:
    """Returns the shapes and types of an ``ImageExample`` with views of ``size`` pixels."""
    return ROW_SPECS | {"image": Spec((size, size, 3), np.uint8)}


def pixels_of(record: Mapping[str, Any]) -> UInt8[np.ndarray, "height width 3"]:
    """Returns the pixels of a record's image.

    Raises:
      BadRecord: it cannot be decoded.
    """
    with decoding(NOT_AN_IMAGE, record_id(record)):
        return images.decode(record["image"])


def random_view_of(
    record: Mapping[str, Any], draws: Draws, how: images.RandomView
) -> UInt8[np.ndarray, "size size 3"]:
    """Returns a training view of a record's image.

    Raises:
      BadRecord: it cannot be decoded.
    """
    with decoding(NOT_AN_IMAGE, record_id(record)):
        return how.of_file(draws, record["image"])
