"""Maps are resized and pooled as PyTorch does it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch.nn import functional

from vlbeit_jax.ops.maps import pool_map, resize_map


def image(height, width):
    return np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)


def as_torch(x):
    return torch.from_numpy(np.array(x)).double().permute(0, 3, 1, 2)


@pytest.mark.parametrize("size", [((4, 5), (11, 9)), ((6, 6), (3, 4)), ((1, 2), (3, 8))], ids=str)
def test_maps_are_resized_as_by_pytorch(size):
    source, target = size
    x = image(*source)
    expected = functional.interpolate(as_torch(x), target, mode="bilinear", align_corners=False)
    found = resize_map(jnp.asarray(x), *target)
    np.testing.assert_allclose(found, expected.permute(0, 2, 3, 1), atol=2e-6)
    corners = functional.interpolate(as_torch(x), target, mode="bilinear", align_corners=True)
    assert np.abs(found - corners.permute(0, 2, 3, 1).numpy()).max() > 0.05


@pytest.mark.parametrize("bins", [1, 2, 3, 6])
def test_maps_are_pooled_as_by_pytorch(bins):
    for height, width in ((16, 16), (4, 7)):
        x = image(height, width)
        expected = functional.adaptive_avg_pool2d(as_torch(x), bins).permute(0, 2, 3, 1)
        np.testing.assert_allclose(pool_map(jnp.asarray(x), bins), expected, atol=2e-6)


def test_bfloat16_maps_stay_so():
    x = jnp.asarray(image(4, 4), jnp.bfloat16)
    found = resize_map(x, 8, 8)
    assert found.dtype == jnp.bfloat16 == jax.eval_shape(lambda: pool_map(x, 2)).dtype
    np.testing.assert_allclose(
        found.astype(jnp.float32), resize_map(x.astype(jnp.float32), 8, 8), atol=0.02
    )
