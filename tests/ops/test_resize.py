"""Resized tables of positions, against PyTorch and against figures of BEiT's released code."""

import numpy as np
import pytest

from vlbeit_jax.ops.resize import bicubic_matrix, geometric_matrix, resize_grid, resize_offsets

# Of z below, resized by BEiT's code with SciPy's cubic spline: beside the centre, corner, sum.
BESIDE, CORNER = 0.97721610, 0.130013
SUMS = {47: 153.457233, 59: 187.402940, 63: 198.578407, 79: 242.848017}


@pytest.mark.parametrize("side", [24, 32, 14, 9, 7, 1])
def test_a_grid_is_resized_as_pytorch_does(side):
    torch = pytest.importorskip("torch")
    grid = np.random.default_rng(side).normal(size=(14, 14, 5)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(grid.transpose(2, 0, 1)[None].astype(np.float64)),
        size=(side, side),
        mode="bicubic",
        align_corners=False,
        antialias=side < 14,
    )[0]
    found = resize_grid(grid, side)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy().transpose(1, 2, 0), atol=1e-6)


@pytest.mark.parametrize("target", [24, 14, 9])
def test_a_constant_stays_constant(target):
    np.testing.assert_allclose(bicubic_matrix(14, target).sum(1), 1, atol=1e-14)


def test_an_equal_size_changes_nothing():
    np.testing.assert_array_equal(bicubic_matrix(14, 14), np.eye(14))


def test_rows_are_not_confused_with_columns():
    grid = np.zeros((4, 4, 1), np.float32)
    grid[0] = 1
    found = resize_grid(grid, 8)[..., 0]
    assert (found[0] > 0.9).all() and np.allclose(found[-1], 0)


@pytest.mark.parametrize("width", SUMS)
def test_offsets_are_spread_as_in_beit(width):
    y, x = np.mgrid[:27, :27] - 13.0
    z = np.exp(-(y**2 + x**2) / 30) + 0.01 * x - 0.02 * y
    found = resize_offsets(z[..., None], width)[..., 0]
    middle = width // 2
    assert found.shape == (width, width)
    np.testing.assert_allclose(found[middle, middle], 1, atol=1e-12)
    np.testing.assert_allclose(found[0, 0], z[0, 0], atol=1e-9)  # The last offset is at the edge.
    # BEiT finds its ratio to 1e-6 only, which shows in the sum of 2209 entries or more.
    np.testing.assert_allclose(found.sum(), SUMS[width], rtol=1e-5)
    evenly_spread = resize_grid(z[..., None], width)
    assert abs(evenly_spread.sum() / SUMS[width] - 1) > 0.01
    if width == 47:
        np.testing.assert_allclose(found[middle, middle + 1], BESIDE, atol=1e-6)
        np.testing.assert_allclose(found[0, 0], CORNER, atol=1e-6)


def test_a_small_table_of_offsets_reaches_a_large_one():
    matrix = geometric_matrix(5, 41)
    np.testing.assert_allclose(matrix[[0, 20, 40]], np.eye(5)[[0, 2, 4]], atol=1e-12)
