"""Permutations: how the values of our arrays are arranged in another program's tensors.

Values only move, so that an export followed by an import gives the same bits.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vlbeit_jax.ops.attention import group_width

Arrays = tuple[np.ndarray, ...]


class Permutation(NamedTuple):
    """Two functions that undo each other.

    Attributes:
      export: from our arrays to the other program's tensors.
      load: from the other program's tensors to our arrays.
    """

    export: Callable[..., Arrays]
    load: Callable[..., Arrays]


def one_to_one(
    export: Callable[[np.ndarray], np.ndarray], load: Callable[[np.ndarray], np.ndarray]
) -> Permutation:
    """A permutation between one array and one tensor."""
    return Permutation(lambda x: (export(x),), lambda x: (load(x),))


SAME = one_to_one(lambda x: x, lambda x: x)

# Kernel [I, O] to PyTorch's weight [O, I].
TRANSPOSED = one_to_one(lambda x: x.T, lambda x: x.T)

# [D] to [1, 1, D].
TOKEN = one_to_one(lambda x: x.reshape(1, 1, -1), lambda x: x.reshape(-1))

# [N, D] to [1, N, D].
ROWS = one_to_one(lambda x: x.reshape(1, *x.shape), lambda x: x.reshape(x.shape[1:]))

# Kernel [row, column, I, O] to weight [O, I, row, column].
CONVOLUTION = one_to_one(lambda x: x.transpose(3, 2, 0, 1), lambda x: x.transpose(2, 3, 1, 0))


def zero(*shape: int) -> Permutation:
    """An array that the other program has no tensor for: not exported, zero after an import."""
    return Permutation(lambda x: (), lambda: (np.zeros(shape, np.float32),))


def image_biases(rows: int, all_rows: int, depth: int, shared: bool = False) -> Permutation:
    """Relative biases [all_rows, depth, H] to tables [rows, H] of offsets between patches.

    Args:
      rows: of the image part, which comes first.
      all_rows: with the text part, which is not exported and is zero after an import.
      depth: number of blocks.
      shared: whether there is one table for all blocks instead of one per block.
    """
    tables = 1 if shared else depth

    def load(*parts: np.ndarray) -> Arrays:
        whole = np.zeros((all_rows, depth, parts[0].shape[1]), parts[0].dtype)
        whole[:rows] = parts[0][:, None] if shared else np.stack(parts, axis=1)
        return (whole,)

    return Permutation(lambda x: tuple(x[:rows, table] for table in range(tables)), load)


def patches(side: int) -> Permutation:
    """Patch kernel [(row, column, channel), D] to convolution weight [D, channel, row, column]."""
    return one_to_one(
        lambda x: x.reshape(side, side, -1, x.shape[-1]).transpose(3, 2, 0, 1),
        lambda x: x.transpose(2, 3, 1, 0).reshape(-1, x.shape[0]),
    )


def fused_qkv(heads: int) -> Permutation:
    """Kernel [D, 3 D] to weight [3 D, D], with rows by (query, key, value), then by head.

    The kernel's columns are in the order that ``ops.attention`` reads: groups of heads, each with
    its queries, keys and values.
    """

    def export(x: np.ndarray) -> np.ndarray:
        group = group_width(len(x), heads)
        return x.reshape(len(x), -1, 3, group).transpose(2, 1, 3, 0).reshape(-1, len(x))

    def load(x: np.ndarray) -> np.ndarray:
        width = x.shape[1]
        groups = x.reshape(3, -1, group_width(width, heads), width)
        return groups.transpose(3, 1, 0, 2).reshape(width, -1)

    return one_to_one(export, load)


def split_qkv(heads: int) -> Permutation:
    """Kernel [D, 3 D] to three weights [D, D]: query, key, value."""
    fused = fused_qkv(heads)

    def export(x: np.ndarray) -> Arrays:
        return tuple(fused.export(x)[0].reshape(3, x.shape[0], x.shape[0]))

    def load(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> Arrays:
        return fused.load(np.concatenate([query, key, value]))

    return Permutation(export, load)


def head_bias(heads: int) -> Permutation:
    """[H, K] to [D]."""
    return one_to_one(lambda x: x.reshape(-1), lambda x: x.reshape(heads, -1))


def fused_bias(heads: int) -> Permutation:
    """Biases [H, K] of queries and of values to one bias [3 D] with that of keys between them.

    We have no bias on keys. It adds the same to all logits of a query, so the softmax ignores it.
    """

    def export(query: np.ndarray, value: np.ndarray) -> Arrays:
        return (np.stack([query, np.zeros_like(query), value]).reshape(-1),)

    def load(x: np.ndarray) -> Arrays:
        query, _, value = x.reshape(3, heads, -1)
        return query, value

    return Permutation(export, load)


def attention_out(heads: int) -> Permutation:
    """Kernel [H, K, D] to weight [D, D]."""
    return one_to_one(
        lambda x: x.reshape(-1, x.shape[-1]).T, lambda x: x.T.reshape(heads, -1, x.shape[0])
    )


def vocabulary_rows(size: int, padded: int) -> Permutation:
    """[padded, D] to [size, D].

    The padding rows cannot be looked up or predicted; they are zero from the first step to the
    last.
    """
    return one_to_one(lambda x: x[:size], lambda x: _pad_rows(x, padded))


def vocabulary_columns(size: int, padded: int) -> Permutation:
    """Kernel [D, padded] to weight [size, D]."""
    return one_to_one(lambda x: x.T[:size], lambda x: _pad_rows(x, padded).T)


def stacked(count: int) -> Permutation:
    """``count`` vectors [D] to one table [count, D]."""
    return Permutation(
        lambda *rows: (np.stack(rows),), lambda table: tuple(table[row] for row in range(count))
    )


def layer_columns(depth: int, heads: int) -> Permutation:
    """[R, depth, H] to [R, depth H], VLMo's one table for all layers."""
    return one_to_one(lambda x: x.reshape(x.shape[0], -1), lambda x: x.reshape(-1, depth, heads))


def _pad_rows(x: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([x, np.zeros((size - len(x), *x.shape[1:]), x.dtype)])
