"""Tables of positions made for other images and shorter texts."""

import numpy as np
import pytest

from vlbeit_jax.errors import UsageError
from vlbeit_jax.ops.position import relative_index, table_rows
from vlbeit_jax.ops.resize import resize_grid
from vlbeit_jax.training.adapters import ResizeRelative, first_rows, resize_positions
from vlbeit_jax.types import Modality

BLOCKS, HEADS = 2, 3


def positions(patches, width=6):
    return np.random.default_rng(0).normal(size=(patches + 1, width)).astype(np.float32)


def relative(grid, texts):
    shape = (table_rows(grid, texts), BLOCKS, HEADS)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def bias(table, grid, texts, length):
    """The bias of each query and key, of a pair whose text has ``length`` tokens."""
    layout = ((Modality.VISION, grid**2 + 1), (Modality.LANGUAGE, length))
    return table[relative_index(layout, grid, texts)]


def test_the_position_of_cls_is_kept_and_those_of_patches_are_resized():
    table = positions(16)
    found = resize_positions(table, (65, 6))
    np.testing.assert_array_equal(found[0], table[0])
    expected = resize_grid(table[1:].reshape(4, 4, 6), 8).reshape(64, 6)
    np.testing.assert_array_equal(found[1:], expected)
    # The same image in finer patches: the mean of a quarter is about that of the table's quarter.
    quarter = found[1:].reshape(8, 8, 6)[:4, :4].mean((0, 1))
    np.testing.assert_allclose(quarter, table[1:].reshape(4, 4, 6)[:2, :2].mean((0, 1)), atol=0.2)


def test_positions_of_shorter_texts_are_the_first_ones():
    table = positions(15)
    np.testing.assert_array_equal(first_rows(table, (9, 6)), table[:9])


@pytest.mark.parametrize(
    ("adapter", "table", "shape", "reason"),
    [
        (resize_positions, positions(16), (65, 8), "only the number of patches"),
        (resize_positions, positions(16), (64, 6), "not CLS and a square grid"),
        (first_rows, positions(15), (17, 6), "set text_positions to at most 16"),
        (first_rows, positions(15), (9, 8), "only the number of positions"),
        (ResizeRelative(9, 12), relative(4, 9), relative(4, 12).shape, "at most 9"),
        (ResizeRelative(8, 8), relative(4, 9), relative(5, 9).shape, "rows are not those"),
        (ResizeRelative(9, 9), relative(4, 9), relative(3, 9).shape, "to larger images"),
        (ResizeRelative(9, 9), relative(2, 9), relative(3, 9).shape, "from at least 3"),
        (ResizeRelative(9, 9), relative(4, 9), (relative(5, 9).shape[0], 2, 4), "number of rows"),
    ],
)
def test_an_adapter_says_what_it_cannot_do(adapter, table, shape, reason):
    with pytest.raises(UsageError, match=reason):
        adapter(table, shape)


def test_relative_positions_of_shorter_texts_mean_the_same():
    table = relative(4, 12)
    found = ResizeRelative(12, 7)(table, relative(4, 7).shape)
    np.testing.assert_array_equal(bias(found, 4, 7, 7), bias(table, 4, 12, 7))


def test_relative_positions_of_larger_images_keep_all_but_the_patches():
    table = relative(4, 9)
    found = ResizeRelative(9, 9)(table, relative(6, 9).shape)
    assert found.dtype == np.float32
    small, large = bias(table, 4, 9, 9), bias(found, 6, 9, 9)
    np.testing.assert_array_equal(large[-9:, -9:], small[-9:, -9:])  # Between word pieces.
    for query, key in ((0, 0), (0, 1), (1, 0), (1, -1), (-1, 1)):
        np.testing.assert_array_equal(large[query, key], small[query, key])
    # The farthest patches are as far apart as an image allows in both.
    for query, key in ((1, -10), (-10, 1)):
        np.testing.assert_allclose(large[query, key], small[query, key], atol=1e-6)
    # A patch and itself.
    np.testing.assert_allclose(large[1, 1], small[1, 1], atol=1e-6)


def test_vertical_offsets_stay_vertical():
    table = relative(4, 9)
    table[:49] = (np.arange(49) // 7)[:, None, None]  # The bias grows with the vertical offset.
    found = ResizeRelative(9, 9)(table, relative(6, 9).shape)[:121].reshape(11, 11, BLOCKS, HEADS)
    assert (np.diff(found, axis=0) > 0.1).all()
    np.testing.assert_allclose(np.diff(found, axis=1), 0, atol=1e-6)
