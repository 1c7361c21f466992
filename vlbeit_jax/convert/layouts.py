"""Named pairs of inverse functions: how an array of ours lies in another program, and back.

A layout maps a tuple of our arrays to a tuple of theirs. Nothing is computed, values only move, so that there and back is
the same bits.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vlbeit_jax.ops.attention import group_width

Arrays = tuple[np.ndarray, ...]


class Layout(NamedTuple):
    """Two functions that undo each other."""

    there: Callable[..., Arrays]
    back: Callable[..., Arrays]


def single(
    there: Callable[[np.ndarray], np.ndarray], back: Callable[[np.ndarray], np.ndarray]
) -> Layout:
    """A layout of one array of ours and one of theirs."""
    return Layout(lambda x: (there(x),), lambda x: (back(x),))


SAME = single(lambda x: x, lambda x: x)
TRANSPOSED = single(lambda x: x.T, lambda x: x.T)  # kernel [I, O] - PyTorch's weight [O, I]
TOKEN = single(lambda x: x.reshape(1, 1, -1), lambda x: x.reshape(-1))  # [D] - [1, 1, D]
ROWS = single(
    lambda x: x.reshape(1, *x.shape), lambda x: x.reshape(x.shape[1:])
)  # [N, D] - [1, N, D]

CONVOLUTION = single(
    lambda x: x.transpose(3, 2, 0, 1), lambda x: x.transpose(2, 3, 1, 0)
)  # [row, column, I, O] - [O, I, row, column]


def zero(*shape: int) -> Layout:
    """An array of ours that the other side has no tensor for, because it adds nothing there."""
    return Layout(lambda x: (), lambda: (np.zeros(shape, np.float32),))


def image_biases(rows: int, all_rows: int, depth: int, shared: bool = False) -> Layout:
    """[R, depth, H] - a table [rows, H] for every block, or one for all; the rows of texts have no place there, and start at zero."""

    def back(*tables: np.ndarray) -> Arrays:
        whole = np.zeros((all_rows, depth, tables[0].shape[1]), tables[0].dtype)
        whole[:rows] = tables[0][:, None] if shared else np.stack(tables, axis=1)
        return (whole,)

    return Layout(lambda x: tuple(x[:rows, block] for block in range(1 if shared else depth)), back)


def patches(side: int) -> Layout:
    """Patch kernel [(row, column, channel), D] - convolution weight [D, channel, row, column]."""
    return single(
        lambda x: x.reshape(side, side, -1, x.shape[-1]).transpose(3, 2, 0, 1),
        lambda x: x.transpose(2, 3, 1, 0).reshape(-1, x.shape[0]),
    )


def fused_qkv(heads: int) -> Layout:
    """[D, 3 D], columns as attention takes them - weight [3 D, D], rows by (query, key, value), then head."""

    def there(x: np.ndarray) -> np.ndarray:
        together = group_width(len(x), heads)
        return x.reshape(len(x), -1, 3, together).transpose(2, 1, 3, 0).reshape(-1, len(x))

    def back(x: np.ndarray) -> np.ndarray:
        width = x.shape[1]
        return (
            x.reshape(3, -1, group_width(width, heads), width)
            .transpose(3, 1, 0, 2)
            .reshape(width, -1)
        )

    return single(there, back)


def split_qkv(heads: int) -> Layout:
    """[D, 3 D] - three weights [D, D]: query, key, value."""
    fused = fused_qkv(heads)

    def there(x: np.ndarray) -> Arrays:
        weight = fused.there(x)[0].reshape(3, x.shape[0], x.shape[0])
        return weight[0], weight[1], weight[2]

    return Layout(there, lambda query, key, value: fused.back(np.concatenate([query, key, value])))


def head_bias(heads: int) -> Layout:
    """[H, K] - [D]."""
    return single(lambda x: x.reshape(-1), lambda x: x.reshape(heads, -1))


def attention_out(heads: int) -> Layout:
    """[H, K, D] - weight [D, D]."""
    return single(
        lambda x: x.reshape(-1, x.shape[-1]).T, lambda x: x.T.reshape(heads, -1, x.shape[0])
    )


def vocabulary_rows(size: int, padded: int) -> Layout:
    """[padded, D] - [size, D]; the rows between can neither be looked up nor predicted, and start and stay zero."""
    return single(lambda x: x[:size], lambda x: _padded(x, padded))


def vocabulary_columns(size: int, padded: int) -> Layout:
    """[D, padded] - weight [size, D]."""
    return single(lambda x: x.T[:size], lambda x: _padded(x, padded).T)


def stacked(count: int) -> Layout:
    """Vectors [D], so many of them - one table [count, D]."""
    return Layout(
        lambda *rows: (np.stack(rows),), lambda table: tuple(table[row] for row in range(count))
    )


def layer_columns(depth: int, heads: int) -> Layout:
    """[R, depth, H] - [R, depth H]: VLMo's one table for all layers."""
    return single(lambda x: x.reshape(x.shape[0], -1), lambda x: x.reshape(-1, depth, heads))


def _padded(x: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([x, np.zeros((size - len(x), *x.shape[1:]), x.dtype)])
