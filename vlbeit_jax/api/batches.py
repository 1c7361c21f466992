"""Runs compiled functions on any number of rows, with few sizes of batches."""

from collections.abc import Callable, Iterator

import jax
import numpy as np

from vlbeit_jax.shapes import Tree

# Each size is a program of its own. One picture should not cost as much as 64.
SIZES = (1, 8, 64)


def in_batches(compute: Callable[[Tree], Tree], rows: Tree) -> Tree:
    """Returns a function's outputs for all rows.

    Args:
      compute: from arrays of rows to arrays with one entry per row. It sees batches of ``SIZES``.
      rows: a tree of arrays with the same number of rows, at least one.
    """
    count = len(jax.tree.leaves(rows)[0])
    outputs = [_batch(compute, rows, *cut) for cut in _cuts(count)]
    return jax.tree.map(lambda *parts: np.concatenate(parts), *outputs)


def _batch(compute: Callable[[Tree], Tree], rows: Tree, start: int, taken: int, size: int) -> Tree:
    """Returns the outputs of ``taken`` rows, computed as a batch of ``size``."""

    def padded(rows: np.ndarray) -> np.ndarray:
        """Repeats the last row."""
        part = rows[start : start + taken]
        return np.concatenate([part, np.repeat(part[-1:], size - taken, axis=0)])

    outputs = jax.device_get(compute(jax.tree.map(padded, rows)))
    return jax.tree.map(lambda leaf: leaf[:taken], outputs)


def _cuts(count: int) -> Iterator[tuple[int, int, int]]:
    """Yields first row, number of rows and size of each batch.

    A batch is padded only if more than half of it is real, so at most half of the work is wasted.
    """
    start = 0
    while start < count:
        rest = count - start
        fits = max(size for size in SIZES if size <= rest)
        larger = next((size for size in SIZES if size >= rest), SIZES[-1])
        size = larger if 2 * rest > larger else fits
        taken = min(rest, size)
        yield start, taken, size
        start += taken
