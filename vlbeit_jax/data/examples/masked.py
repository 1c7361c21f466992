"""Masked images, texts and pairs: the examples of pretraining (VL-BEiT)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from vlbeit_jax.config.streams import ImageStreamConfig, StreamConfig, TextStreamConfig
from vlbeit_jax.data.cached_tokens import VISUAL_TOKENS
from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.examples.base import ROW_SPECS, Example, Spec, caption_of, row_fields
from vlbeit_jax.data.examples.images import Views
from vlbeit_jax.data.masking import blockwise_mask, mask_text, masked_slots
from vlbeit_jax.data.text import TextTokenizer


@dataclasses.dataclass(frozen=True)
class MaskedExample:
    """An image, a text or both, with the positions that are masked.

    Attributes:
      stream: sizes, augmentation and mask ratios; its class tells whether there are images, texts
        or both.
      image_size: side of the view, pixels.
      grid: patches along a side.
      tokenizer: of the text; None without texts.
      augment: a random view and a random caption, for training; otherwise the centre and the first
        caption, for evaluation.
    """

    stream: StreamConfig
    image_size: int
    grid: int
    tokenizer: TextTokenizer | None
    augment: bool

    @property
    def views(self) -> Views:
        """How views are made from images."""
        assert isinstance(self.stream, ImageStreamConfig), self.stream
        return Views(self.stream, self.image_size, self.augment)

    def __call__(self, record: Mapping[str, Any], draws: Draws) -> Example:
        """Returns the arrays that ``masked_specs`` lists.

        The image is not masked yet, because the visual tokenizer sees the whole one.
        """
        example = row_fields(record)
        # The order of the draws (view, patches, caption, pieces) is part of what a seed reproduces.
        if isinstance(self.stream, ImageStreamConfig):
            example |= self._image(record, draws, self.stream)
        if isinstance(self.stream, TextStreamConfig):
            assert self.tokenizer is not None, "a stream of texts has a tokenizer"
            example |= self._text(record, draws, self.stream, self.tokenizer)
        return example

    def _image(self, record: Mapping[str, Any], draws: Draws, stream: ImageStreamConfig) -> Example:
        view, number = self.views(record, draws)
        masked = blockwise_mask(draws, self.grid, stream.num_masked_patches, stream.mask_block)
        example: Example = {"image": view, "masked_patches": masked}
        if VISUAL_TOKENS in record:
            example["image_targets"] = record[VISUAL_TOKENS][number][masked].astype(np.int32)
        return example

    def _text(
        self,
        record: Mapping[str, Any],
        draws: Draws,
        stream: TextStreamConfig,
        tokenizer: TextTokenizer,
    ) -> Example:
        row = self._pieces(record, draws, stream.text_length, tokenizer)
        word_starts = tokenizer.word_starts if stream.whole_words else None
        masked = mask_text(draws, row, stream.masked_text, tokenizer.vocabulary, word_starts)
        return {
            "text": masked.text,
            "text_masked": masked.positions,
            "text_targets": masked.targets,
            "text_weights": masked.weights,
        }

    def _pieces(
        self, record: Mapping[str, Any], draws: Draws, length: int, tokenizer: TextTokenizer
    ) -> np.ndarray:
        """Returns a packed row as it is, or one of the captions as a row."""
        if "tokens" in record:
            return record["tokens"].astype(np.int32)
        caption = caption_of(record, draws if self.augment else None)
        return tokenizer.encode_row(caption, length)


def masked_specs(
    stream: StreamConfig, image_size: int, cached_tokens: bool = False
) -> dict[str, Spec]:
    """Returns the shapes and types of a ``MaskedExample`` without making one.

    A batch has the same arrays, with an axis of rows in front.

    Args:
      stream: sizes and mask ratios; its class tells whether there are images, texts or both.
      image_size: side of the view, pixels.
      cached_tokens: whether the targets of the image come from the cache. Otherwise the train step
        computes them.

    Returns:
      ``weight`` and ``uid``: see ``data.examples.base.row_fields``.
      With images, ``image``: pixels before masking; ``masked_patches``: positions of the masked
      patches, rising; ``image_targets``, if cached: their visual tokens.
      With texts, ``text``: word pieces after masking; ``text_masked``: positions of the pieces to
      predict; ``text_targets``: the original pieces there; ``text_weights``: 1 for a position, 0
      for a slot that is not used.
    """
    specs = dict(ROW_SPECS)
    if isinstance(stream, ImageStreamConfig):
        specs["image"] = Spec((image_size, image_size, 3), np.uint8)
        specs["masked_patches"] = Spec((stream.num_masked_patches,), np.int32)
        if cached_tokens:
            specs["image_targets"] = Spec((stream.num_masked_patches,), np.int32)
    if isinstance(stream, TextStreamConfig):
        slots = (masked_slots(stream.text_length, stream.masked_text),)
        specs["text"] = Spec((stream.text_length,), np.int32)
        specs["text_masked"] = Spec(slots, np.int32)
        specs["text_targets"] = Spec(slots, np.int32)
        specs["text_weights"] = Spec(slots, np.float32)
    return specs
