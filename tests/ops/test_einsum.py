"""Products of bfloat16 with float32 results, forward and backward."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vlbeit_jax.ops.einsum import einsum_to_float32

SPECS = {"ti,io->to": ((5, 7), (7, 6)), "bhqk,bhsk->bhqs": ((2, 3, 5, 4), (2, 3, 6, 4))}


def inputs(spec, dtype):
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(rng.normal(size=shape), dtype) for shape in SPECS[spec])
    return a, b, jnp.asarray(rng.normal(size=jnp.einsum(spec, a, b).shape), jnp.float32)


@pytest.mark.parametrize(("dtype", "rounding"), [(jnp.float32, 1e-6), (jnp.bfloat16, 2**-8)])
@pytest.mark.parametrize("spec", SPECS)
def test_value_and_gradients_are_those_of_float64(spec, dtype, rounding):
    a, b, change = inputs(spec, dtype)
    wide = [np.asarray(x, np.float64) for x in (a, b, change)]
    out, pull = jax.vjp(lambda a, b: einsum_to_float32(spec, a, b), a, b)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(
        out, np.einsum(spec, *wide[:2]), rtol=1e-5, atol=1e-5
    )  # Rounding is for the way back alone.
    of_a, of_b, of_out = spec.replace("->", ",").split(",")
    expected = (
        np.einsum(f"{of_out},{of_b}->{of_a}", wide[2], wide[1]),
        np.einsum(f"{of_a},{of_out}->{of_b}", wide[0], wide[2]),
    )
    for found, right in zip(pull(change), expected, strict=True):
        assert found.dtype == dtype
        np.testing.assert_allclose(
            np.asarray(found, np.float64), right, atol=2 * rounding * np.abs(right).max()
        )
