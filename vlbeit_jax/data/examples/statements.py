"""Two images with a statement that is true or false of both together (NLVR2)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from vlbeit_jax.config.finetune import PairedStreamConfig
from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.examples.base import ROW_SPECS, Example, Spec, row_fields
from vlbeit_jax.data.examples.labelled import as_text
from vlbeit_jax.data.examples.paired import paired_view
from vlbeit_jax.data.text import TextTokenizer

IMAGES = ("image", "second_image")  # Of a record and of an example.


@dataclasses.dataclass(frozen=True)
class StatementExample:
    """Two images, a statement, and whether it is true.

    Attributes:
      settings: augmentation, and length of the statement.
      size: side of an image, pixels.
      tokenizer: of the statement.
      labelled: whether the truth is there; it is left out for prediction.
      augment: for training.
    """

    settings: PairedStreamConfig
    size: int
    tokenizer: TextTokenizer
    labelled: bool
    augment: bool

    def __call__(self, record: Mapping[str, Any], draws: Draws) -> Example:
        """Returns the arrays that ``statement_specs`` lists.

        Each image has a crop, a flip and operations of its own; those of the first are drawn first.
        The images never change places, because a statement may say which is the left one.
        """
        statement = as_text(record["text"])
        views = {
            name: paired_view(
                {**record, "image": record[name]},
                draws,
                self.settings,
                self.size,
                self.augment,
                statement,
            )
            for name in IMAGES
        }
        row = self.tokenizer.encode_row(statement, self.settings.text_length)
        example = row_fields(record) | views | {"text": row}
        return example | ({"truth": np.int32(record["truth"])} if self.labelled else {})


def statement_specs(settings: PairedStreamConfig, size: int) -> dict[str, Spec]:
    """Returns the shapes and types of a ``StatementExample``."""
    return ROW_SPECS | {
        **{name: Spec((size, size, 3), np.uint8) for name in IMAGES},
        "text": Spec((settings.text_length,), np.int32),
        "truth": Spec((), np.int32),
    }
