"""The order of patches and of the pixels in them."""

import jax.numpy as jnp
import numpy as np
import pytest

from vlbeit_jax.ops.patches import from_patches, normalise, to_patches


@pytest.mark.parametrize(("grid", "side"), [(1, 4), (3, 4), (4, 2), (5, 1)])
def test_round_trip(grid, side):
    image = (
        np.random.default_rng(0).normal(size=(2, grid * side, grid * side, 3)).astype(np.float32)
    )
    patches = to_patches(jnp.asarray(image), side)
    assert patches.shape == (2, grid**2, side**2 * 3)
    np.testing.assert_array_equal(from_patches(patches, side), image)


def test_order_is_row_major():
    """Every value of a 4 high, 6 wide image names its own place."""
    row, column, channel = np.meshgrid(np.arange(4), np.arange(6), np.arange(3), indexing="ij")
    found = np.asarray(
        to_patches(jnp.asarray(100 * row + 10 * column + channel, jnp.float32)[None], 2)
    )
    for patch in range(6):
        for value in range(12):
            top, left = 2 * (patch // 3), 2 * (patch % 3)
            expected = 100 * (top + value // 6) + 10 * (left + value % 6 // 3) + value % 3
            assert found[0, patch, value] == expected


def test_normalise():
    found = normalise(jnp.asarray([[[[0, 51, 255]]]], jnp.uint8))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found[0, 0, 0], [-1, -0.6, 1], atol=1e-6)
