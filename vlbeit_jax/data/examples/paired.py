"""Images with texts: questions with their answers, and captions."""

import dataclasses
import re
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from vlbeit_jax.config.finetune import PairedStreamConfig
from vlbeit_jax.data import image as images
from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.examples.base import (
    ROW_SPECS,
    Example,
    Spec,
    caption_of,
    record_id,
    row_fields,
)
from vlbeit_jax.data.examples.images import pixels_of, random_view_of
from vlbeit_jax.data.examples.labelled import as_text
from vlbeit_jax.data.rand_augment import VARIANTS
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.metrics.vqa import Rule, soft_targets
from vlbeit_jax.shapes import UInt8

MOST_ANSWERS = 10  # Different answers to one question that have a score.
# Left and right change sides in a mirrored image; so do clocks and what is written in it.
SIDES = re.compile(r"\b(left|right)|clockwise\b", re.IGNORECASE)


def names_a_side(text: str) -> bool:
    """Returns whether a text says something that a mirrored image would make wrong.

    "Right" in the sense of correct counts as well, which costs a flip and no mistake.
    """
    return SIDES.search(text) is not None


def paired_view(
    record: Mapping[str, Any],
    draws: Draws,
    settings: PairedStreamConfig,
    size: int,
    augment: bool,
    text: str,
) -> UInt8[np.ndarray, "size size 3"]:
    """Returns the image that goes with a text.

    Evaluation squashes the whole image to a square (BEiT-3, VLMo, ALBEF): a crop could cut off what
    the text is about. Training takes a random crop, flips it unless the text names a side, and
    applies RandAugment. The draws (crop, flip, operations) are the same whatever the text says.
    """
    if not augment:
        return images.squashed_view(pixels_of(record), size)
    flip = 0.0 if names_a_side(text) else settings.flip
    how = images.RandomView(size, settings.crop_scale, 0.0, flip)
    view = random_view_of(record, draws, how)
    policy = VARIANTS[settings.rand_augment]
    return policy(draws, view) if policy else view


@dataclasses.dataclass(frozen=True)
class QuestionExample:
    """An image, a question, and the scores of answers of the list.

    Attributes:
      settings: augmentation, and length of the question.
      size: side of the image, pixels.
      tokenizer: of the question.
      numbers: of each answer of the list; empty: answers are left out, for prediction.
      rule: by which answers have scores.
      augment: for training.
    """

    settings: PairedStreamConfig
    size: int
    tokenizer: TextTokenizer
    numbers: Mapping[str, int]
    rule: Rule
    augment: bool

    def __call__(self, record: Mapping[str, Any], draws: Draws) -> Example:
        """Returns the arrays that ``question_specs`` lists."""
        question = as_text(record["text"])
        answers = [as_text(answer) for answer in record["answers"]] if self.numbers else []
        said = " ".join([question, *answers])
        view = paired_view(record, draws, self.settings, self.size, self.augment, said)
        row = self.tokenizer.encode_row(question, self.settings.text_length)
        example = row_fields(record) | {"image": view, "text": row}
        return example | (self._targets(answers) if self.numbers else {})

    def _targets(self, answers: list[str]) -> Example:
        soft = soft_targets(answers, self.rule)
        listed = [
            (self.numbers[name], score) for name, score in soft.items() if name in self.numbers
        ]
        numbers, scores = np.zeros(MOST_ANSWERS, np.int32), np.zeros(MOST_ANSWERS, np.float32)
        for slot, (number, score) in enumerate(listed):
            numbers[slot], scores[slot] = number, score
        return {"answers": numbers, "scores": scores}


@dataclasses.dataclass(frozen=True)
class CaptionExample:
    """An image and one of its captions, with a number that identifies the image.

    Attributes:
      settings: augmentation, and length of the caption.
      size: side of the image, pixels.
      tokenizer: of the caption.
      augment: for training: a random caption; otherwise the first one.
    """

    settings: PairedStreamConfig
    size: int
    tokenizer: TextTokenizer
    augment: bool

    def __call__(self, record: Mapping[str, Any], draws: Draws) -> Example:
        """Returns the arrays that ``caption_specs`` lists. The caption is drawn first."""
        caption = caption_of(record, draws if self.augment else None)
        return row_fields(record) | {
            "image": paired_view(record, draws, self.settings, self.size, self.augment, caption),
            "text": self.tokenizer.encode_row(caption, self.settings.text_length),
            "picture": picture_number(record),
        }


@dataclasses.dataclass(frozen=True)
class WholeImage:
    """An image alone, squashed to a square, as evaluation sees it.

    Attributes:
      size: side of the image, pixels.
    """

    size: int

    def __call__(self, record: Mapping[str, Any], draws: Draws) -> Example:
        """Returns ``image``, ``weight`` and ``uid``."""
        return row_fields(record) | {"image": images.squashed_view(pixels_of(record), self.size)}


@dataclasses.dataclass(frozen=True)
class TextAlone:
    """A text alone.

    Attributes:
      tokenizer: of the text.
      length: word pieces of a row.
    """

    tokenizer: TextTokenizer
    length: int

    def __call__(self, record: Mapping[str, Any], draws: Draws) -> Example:
        """Returns ``text``, ``weight`` and ``uid``."""
        row = self.tokenizer.encode_row(as_text(record["text"]), self.length)
        return row_fields(record) | {"text": row}


def picture_number(record: Mapping[str, Any]) -> np.uint32:
    """Returns 32 bits that are the same for records with the same picture file.

    In about one of a thousand batches of 3,072 rows, two different pictures have one number. They
    are then no negatives of each other.
    """
    digest = as_text(record["sha256"]) if "sha256" in record else record_id(record)
    return np.uint32(zlib.crc32(digest.encode()))


def question_specs(settings: PairedStreamConfig, size: int) -> dict[str, Spec]:
    """Returns the shapes and types of a ``QuestionExample``."""
    return ROW_SPECS | {
        "image": Spec((size, size, 3), np.uint8),
        "text": Spec((settings.text_length,), np.int32),
        "answers": Spec((MOST_ANSWERS,), np.int32),
        "scores": Spec((MOST_ANSWERS,), np.float32),
    }


def caption_specs(settings: PairedStreamConfig, size: int) -> dict[str, Spec]:
    """Returns the shapes and types of a ``CaptionExample``."""
    return ROW_SPECS | {
        "image": Spec((size, size, 3), np.uint8),
        "text": Spec((settings.text_length,), np.int32),
        "picture": Spec((), np.uint32),
    }
