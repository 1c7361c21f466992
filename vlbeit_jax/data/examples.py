"""Records to training examples: each is a function of a record and its own draws, nothing else."""

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from vlbeit_jax.config import StreamConfig
from vlbeit_jax.data import image as images
from vlbeit_jax.data.cached_tokens import VISUAL_TOKENS
from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.masking import blockwise_mask, mask_text, masked_slots
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.shapes import UInt8

Example = dict[str, np.ndarray | np.generic]


class Spec(NamedTuple):
    """Shape and type of an array of an example."""

    shape: tuple[int, ...]
    dtype: type[np.generic]


def example_specs(
    stream: StreamConfig, image_size: int, has_text: bool, cached_tokens: bool = False
) -> dict[str, Spec]:
    """What ``MakeExample`` gives, without making one.

    Args:
      stream: sizes and mask shares.
      image_size: side of the view in pixels; 0: no image.
      has_text: whether there are word pieces.
      cached_tokens: whether an image comes with its visual tokens.
    """
    found = {"weight": Spec((), np.float32), "uid": Spec((), np.uint32)}
    if image_size:
        found["image"] = Spec((image_size, image_size, 3), np.uint8)
        found["masked_patches"] = Spec((stream.num_masked_patches,), np.int32)
    if image_size and cached_tokens:
        found["image_targets"] = Spec((stream.num_masked_patches,), np.int32)
    if has_text:
        slots = (masked_slots(stream.text_length, stream.masked_text),)
        found["text"] = Spec((stream.text_length,), np.int32)
        found |= {
            "text_masked": Spec(slots, np.int32),
            "text_targets": Spec(slots, np.int32),
            "text_weights": Spec(slots, np.float32),
        }
    return found


@dataclasses.dataclass(frozen=True)
class MakeExample:
    """One record as arrays of fixed shape.

    Attributes:
      stream: sizes, augmentation and mask shares.
      image_size: side of the view in pixels; 0: no image.
      grid: patches along a side.
      tokenizer: for texts; None: no text.
      augment: random view and random caption (training), or centre view and first caption (evaluation).
    """

    stream: StreamConfig
    image_size: int
    grid: int
    tokenizer: TextTokenizer | None
    augment: bool

    def __call__(self, record: Mapping[str, Any], draws: Draws) -> Example:
        """Keys by what the stream has: image, masked_patches, image_targets; text, text_masked, ...; weight, uid."""
        example: Example = {
            "weight": np.float32(record.get("weight", 1)),
            "uid": np.uint32(zlib.crc32(_identity(record).encode())),
        }
        if self.image_size:
            example |= self._image(record, draws)
        if self.tokenizer is not None:
            example |= self._text(record, draws, self.tokenizer)
        return example

    def view(self, record: Mapping[str, Any], number: int) -> UInt8[np.ndarray, "size size 3"]:
        """One of a record's ``stream.views`` views: a function of its id and the number, whatever the run."""
        return self._random_view(record, Draws("view", _identity(record), number))

    def _image(self, record: Mapping[str, Any], draws: Draws) -> Example:
        number = 0
        if not self.augment:
            view = images.centre_view(_pixels(record), self.image_size)
        elif self.stream.views:
            number = draws.below(self.stream.views)
            view = self.view(record, number)
        else:
            view = self._random_view(record, draws)
        masked = blockwise_mask(
            draws, self.grid, self.stream.num_masked_patches, self.stream.mask_block
        )
        example: Example = {"image": view, "masked_patches": masked}
        if VISUAL_TOKENS in record:
            example["image_targets"] = record[VISUAL_TOKENS][number][masked].astype(np.int32)
        return example

    def _random_view(
        self, record: Mapping[str, Any], draws: Draws
    ) -> UInt8[np.ndarray, "size size 3"]:
        stream = self.stream
        return images.random_view(
            draws,
            _pixels(record),
            self.image_size,
            crop_scale=stream.crop_scale,
            colour_jitter=stream.colour_jitter,
            flip=stream.flip,
        )

    def _text(self, record: Mapping[str, Any], draws: Draws, tokenizer: TextTokenizer) -> Example:
        if "tokens" in record:
            row = record["tokens"].astype(np.int32)
        else:
            captions = record["captions"]
            caption = captions[draws.below(len(captions)) if self.augment else 0]
            row = tokenizer.encode_row(
                caption.decode() if isinstance(caption, bytes) else caption, self.stream.text_length
            )
        starts = tokenizer.word_starts if self.stream.whole_words else None
        masked = mask_text(draws, row, self.stream.masked_text, tokenizer.vocabulary, starts)
        return {
            "text": masked.text,
            "text_masked": masked.positions,
            "text_targets": masked.targets,
            "text_weights": masked.weights,
        }


def _identity(record: Mapping[str, Any]) -> str:
    return record["id"].decode() if isinstance(record["id"], bytes) else record["id"]


def _pixels(record: Mapping[str, Any]) -> UInt8[np.ndarray, "height width 3"]:
    try:
        return images.decode(record["image"])
    except ValueError as error:
        raise ValueError(f"record {_identity(record)!r}: {error}") from error
