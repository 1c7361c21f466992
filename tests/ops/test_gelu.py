"""GELU and its derivative against float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlbeit_jax.ops.gelu import gelu


def exact(x):
    """Value and derivative in float64."""
    share = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in x])
    return x * share, share + x * np.exp(-0.5 * x**2) / math.sqrt(2 * math.pi)


def test_value_and_derivative_are_exact_to_float32():
    x = np.concatenate([np.linspace(-12, 12, 20_001), [0.0, -0.0, 1e-30, -100.0, 100.0]]).astype(
        np.float32
    )
    value, slope = exact(x.astype(np.float64))
    found, found_slope = jax.jit(jax.vmap(jax.value_and_grad(gelu)))(x)
    assert (np.abs(found - value) <= 2e-7 * np.maximum(np.abs(x), 1)).all()
    np.testing.assert_allclose(found_slope, slope, rtol=0, atol=4e-7)


def test_the_tanh_form_is_told_apart():
    x = np.linspace(-4, 4, 1001).astype(np.float32)
    assert np.abs(jax.nn.gelu(x, approximate=True) - exact(x.astype(np.float64))[0]).max() > 1e-4


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_types_stay_and_large_inputs_are_finite(dtype):
    x = jnp.asarray([-1e30, -50, 0, 50, 1e30], dtype)
    value, slope = gelu(x), jax.vmap(jax.grad(gelu))(x)
    assert value.dtype == slope.dtype == dtype and np.isfinite(np.asarray(value, np.float32)).all()
    np.testing.assert_array_equal(np.asarray(slope, np.float32), [0, 0, 0.5, 1, 1])
