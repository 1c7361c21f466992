"""VLMo's relative-position bias: the row of its joint table that each query and key read.

Rows of the table for g x g patches and texts of up to T word pieces, as in VLMo's released code:

- (2g-1)^2 offsets between patches, query minus key;
- image CLS to patch, patch to image CLS, image CLS to itself;
- text to image, image to text;
- 2T-3 offsets between word pieces, key minus query;
- text CLS to piece, piece to text CLS, text CLS to itself.
"""

import numpy as np

from vlbeit_jax.shapes import Int
from vlbeit_jax.types import Layout, Modality


def table_rows(grid: int, text_positions: int) -> int:
    """Returns the rows of the joint table: 1126 for 14 x 14 patches and 196 word pieces."""
    return _image_rows(grid) + 2 + 2 * text_positions


def relative_index(layout: Layout, grid: int, text_positions: int) -> Int[np.ndarray, "L L"]:
    """Returns the row of the joint table for each query (row) and key (column) of a layout.

    Args:
      layout: runs of tokens by modality, each with its CLS first. Runs of no token are left out.
      grid: patches along a side of the image.
      text_positions: longest text, in word pieces with CLS.
    """
    # Behind the rows of images are the two crossings, and then the rows of texts.
    text_to_image = _image_rows(grid)
    image_to_text, first_of_text = text_to_image + 1, text_to_image + 2

    def block(query: tuple[Modality, int], key: tuple[Modality, int]) -> np.ndarray:
        """Returns rows for the queries of one run and the keys of one run."""
        (asking, queries), (asked, keys) = query, key
        if asking is not asked:
            row = text_to_image if asking is Modality.LANGUAGE else image_to_text
            return np.full((queries, keys), row)
        if asking is Modality.VISION:
            return _image_index(grid)
        return _text_index(queries, text_positions, first_of_text)

    runs = [run for run in layout if run[1]]
    return np.block([[block(query, key) for key in runs] for query in runs]).astype(np.int32)


def _offsets(grid: int) -> int:
    """Offsets between two patches along one axis: from -(grid - 1) to grid - 1."""
    return 2 * grid - 1


def _image_rows(grid: int) -> int:
    return _offsets(grid) ** 2 + 3


def _image_index(grid: int) -> np.ndarray:
    row, column = np.divmod(np.arange(grid**2), grid)
    # Query minus key, from 0 on.
    rows = row[:, None] - row + grid - 1
    columns = column[:, None] - column + grid - 1
    return _with_cls(rows * _offsets(grid) + columns, _offsets(grid) ** 2)


def _text_index(length: int, text_positions: int, first: int) -> np.ndarray:
    # Pieces of the text without its CLS, and the largest offset between two of them.
    place, largest = np.arange(length - 1), text_positions - 2
    offset = place[None, :] - place[:, None]
    return _with_cls(first + largest + offset, first + 2 * largest + 1)


def _with_cls(inner: np.ndarray, first: int) -> np.ndarray:
    """Adds CLS in front. From ``first`` on, three rows: CLS as query, as key, and to itself."""
    index = np.empty((inner.shape[0] + 1, inner.shape[1] + 1), inner.dtype)
    index[1:, 1:] = inner
    index[0, :], index[:, 0], index[0, 0] = first, first + 1, first + 2
    return index
