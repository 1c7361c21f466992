"""Adapters of a warm start: from an array of the start to one of the shape that is needed.

Each refuses with a ``UsageError`` what it cannot do, in words that follow the parameter's name.
"""

import dataclasses
import math

import numpy as np

from vlbeit_jax.errors import UsageError
from vlbeit_jax.ops.position import table_rows
from vlbeit_jax.ops.resize import resize_grid, resize_offsets


def resize_positions(table: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Resizes a table of absolute positions for images of another size, as BEiT-3 does.

    The first row, of CLS, is kept. The others are a square grid of patches, resized by bicubic
    interpolation, antialiased if it shrinks.
    """
    sides = [math.isqrt(rows - 1) for rows in (len(table), shape[0])]
    if table.shape[1:] != shape[1:]:
        raise UsageError("only the number of patches can change")
    if [1 + side**2 for side in sides] != [len(table), shape[0]]:
        raise UsageError("its rows are not CLS and a square grid of patches")
    source, target = sides
    grid = resize_grid(table[1:].reshape(source, source, -1), target)
    return np.concatenate([table[:1], grid.reshape(target**2, -1)])


def first_rows(table: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Keeps the first rows of a table of text positions. Refuses longer texts than the start's."""
    if table.shape[1:] != shape[1:]:
        raise UsageError("only the number of positions can change")
    if len(table) < shape[0]:
        raise UsageError(
            f"the start has learned positions for texts of up to {len(table)} word pieces; "
            f"set text_positions to at most {len(table)}"
        )
    return table[: shape[0]]


@dataclasses.dataclass(frozen=True)
class ResizeRelative:
    """Resizes VLMo's joint table of relative positions (``ops.position``), as BEiT and VLMo do.

    The offsets between patches are enlarged by ``resize_offsets``. The rows of CLS and of pairs of
    modalities are kept. Shorter texts keep their offsets.

    Attributes:
      source_texts: longest text of the start, in word pieces. It is not in the shape of the table,
        which only tells the sum of the image's and the text's rows.
      texts: longest text that is needed.
    """

    source_texts: int
    texts: int

    def __call__(self, table: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Returns the table for another image size or shorter texts.

        Args:
          table: of the start, [rows, blocks, heads].
          shape: that is needed.
        """
        if table.shape[1:] != shape[1:]:
            raise UsageError("only the number of rows can change")
        if self.source_texts < self.texts:
            raise UsageError(
                f"the start has learned offsets in texts of up to {self.source_texts} word "
                f"pieces; set text_positions to at most {self.source_texts}"
            )
        source, target = (
            self._image_width(len(table), self.source_texts),
            self._image_width(shape[0], self.texts),
        )
        offsets = table[: source**2]
        if source != target:
            if source < 5 or target < source:
                raise UsageError(
                    "relative positions can only be resized to larger images, from at least 3 "
                    f"patches along a side; the start has {(source + 1) // 2}, this model "
                    f"{(target + 1) // 2}"
                )
            square = resize_offsets(offsets.reshape(source, source, -1), target)
            offsets = square.reshape(target**2, *shape[1:])
        return np.concatenate([offsets, self._other_rows(table[source**2 :])])

    def _image_width(self, rows: int, texts: int) -> int:
        """Offsets along a side, which is odd: twice the patches less 1."""
        # A grid of 1 patch has 1 offset.
        area = rows - table_rows(1, texts) + 1
        width = math.isqrt(max(area, 0))
        if width**2 != area or width % 2 == 0:
            raise UsageError(f"{rows} rows are not those of any image with texts of {texts}")
        return width

    def _other_rows(self, rows: np.ndarray) -> np.ndarray:
        """Leaves out the offsets between word pieces that shorter texts do not have."""
        removed = self.source_texts - self.texts
        # 3 rows of the image's CLS and 2 between modalities come first, 3 of the text's CLS last.
        # Between them lie the offsets of word pieces, offset 0 in the middle.
        return np.concatenate([rows[:5], rows[5 + removed : -3 - removed], rows[-3:]])
