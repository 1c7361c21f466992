"""Images with a caption most of whose pieces are masked: the examples of captioning."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from vlbeit_jax.config.finetune import CaptionStreamConfig
from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.examples.base import ROW_SPECS, Example, Spec, caption_of, row_fields
from vlbeit_jax.data.examples.paired import paired_view
from vlbeit_jax.data.masking import caption_slots, mask_caption
from vlbeit_jax.data.text import TextTokenizer, row_of


@dataclasses.dataclass(frozen=True)
class MaskedCaption:
    """An augmented image, and one of its captions with the positions that are masked.

    Attributes:
      settings: augmentation, length of the caption, masked share.
      size: side of the image, pixels.
      tokenizer: of the caption.
    """

    settings: CaptionStreamConfig
    size: int
    tokenizer: TextTokenizer

    def __call__(self, record: Mapping[str, Any], draws: Draws) -> Example:
        """Returns the arrays that ``masked_caption_specs`` lists. The caption is drawn first."""
        length, caption = self.settings.text_length, caption_of(record, draws)
        view = paired_view(record, draws, self.settings, self.size, True, caption)
        pieces = self.tokenizer.encode(caption)
        masked = mask_caption(
            draws,
            row_of(pieces[: length - 2], length),
            self.settings.masked_text,
            self.tokenizer.vocabulary,
            whole=len(pieces) <= length - 2,
        )
        return row_fields(record) | {
            "image": view,
            "text": masked.text,
            "text_masked": masked.positions,
            "text_targets": masked.targets,
            "text_weights": masked.weights,
        }


def masked_caption_specs(settings: CaptionStreamConfig, size: int) -> dict[str, Spec]:
    """Returns the shapes and types of a ``MaskedCaption``."""
    slots = (caption_slots(settings.text_length, settings.masked_text),)
    return ROW_SPECS | {
        "image": Spec((size, size, 3), np.uint8),
        "text": Spec((settings.text_length,), np.int32),
        "text_masked": Spec(slots, np.int32),
        "text_targets": Spec(slots, np.int32),
        "text_weights": Spec(slots, np.float32),
    }
