"""Index of the relative-position bias: which table row each (query, key) pair reads (VLMo; spec section 1.3).

Table rows for a grid of g x g patches and texts of up to T0 pieces: first (2g-1)^2 patch offsets (query minus key), then
image CLS to patch, patch to CLS, CLS to CLS; text to image, image to text; 2*T0-3 text offsets (key minus query), then text
CLS to piece, piece to CLS, CLS to CLS.
"""

import numpy as np

from vlbeit_jax.shapes import Int
from vlbeit_jax.types import Layout, Modality


def table_rows(grid: int, text_positions: int) -> int:
    """Rows of the joint table; 1126 for a 14 x 14 grid and 196 pieces."""
    return _image_rows(grid) + 2 + 2 * text_positions


def relative_index(layout: Layout, grid: int, text_positions: int) -> Int[np.ndarray, "L L"]:
    """Row of the joint table for every query (row) and key (column) of a layout."""
    image_rows = _image_rows(grid)

    def block(query: tuple[Modality, int], key: tuple[Modality, int]) -> np.ndarray:
        if query[0] is not key[0]:
            return np.full(
                (query[1], key[1]), image_rows if query[0] is Modality.LANGUAGE else image_rows + 1
            )
        if query[0] is Modality.VISION:
            return _image_index(grid)
        return _text_index(query[1], text_positions, image_rows + 2)

    return np.block([[block(query, key) for key in layout] for query in layout]).astype(np.int32)


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
    """Adds the CLS row and column: CLS as query, as key, and to itself."""
    index = np.empty((inner.shape[0] + 1, inner.shape[1] + 1), inner.dtype)
    index[1:, 1:] = inner
    index[0, :], index[:, 0], index[0, 0] = first, first + 1, first + 2
    return index
