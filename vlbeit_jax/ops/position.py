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
    """Rows of the joint table: 1126 for 14 x 14 patches and 196 word pieces."""
    return _image_rows(grid) + 2 + 2 * text_positions


def relative_index(layout: Layout, grid: int, text_positions: int) -> Int[np.ndarray, "L L"]:
    """Row of the joint table for each query (row) and key (column) of a layout.

    Args:
      layout: runs of tokens by modality, each with its CLS first. Runs of no token are left out.
      grid: patches along a side of the image.
      text_positions: longest text, in word pieces with CLS.
    """
    image_rows = _image_rows(grid)

    def block(query: tuple[Modality, int], key: tuple[Modality, int]) -> np.ndarray:
        if query[0] is not key[0]:
            return np.full(
                (query[1], key[1]), image_rows if query[0] is Modality.LANGUAGE else image_rows + 1
            )
        if query[0] is Modality.VISION:
            return _image_index(grid)
        return _text_index(query[1], text_positions, image_rows + 2)

    runs = [run for run in layout if run[1]]
    return np.block([[block(query, key) for key in runs] for query in runs]).astype(np.int32)


def _image_rows(grid: int) -> int:
    return (2 * grid - 1) ** 2 + 3


def _image_index(grid: int) -> np.ndarray:
    place = np.stack(np.meshgrid(np.arange(grid), np.arange(grid), indexing="ij"), -1).reshape(
        -1, 2
    )
    offset = place[:, None, :] - place[None, :, :] + grid - 1
    return _with_cls(offset[..., 0] * (2 * grid - 1) + offset[..., 1], _image_rows(grid) - 3)


def _text_index(length: int, text_positions: int, first: int) -> np.ndarray:
    place = np.arange(length - 1)
    offset = place[None, :] - place[:, None]
    return _with_cls(first + text_positions - 2 + offset, first + 2 * text_positions - 3)


def _with_cls(inner: np.ndarray, first: int) -> np.ndarray:
    """Adds CLS in front. From ``first`` on, three rows: CLS as query, as key, and to itself."""
    index = np.empty((inner.shape[0] + 1, inner.shape[1] + 1), inner.dtype)
    index[1:, 1:] = inner
    index[0, :], index[:, 0], index[0, 0] = first, first + 1, first + 2
    return index
