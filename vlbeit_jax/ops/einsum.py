"""Products of bfloat16 with results in float32, whose backward products are of bfloat16 too."""

import functools

import jax
import jax.numpy as jnp

from vlbeit_jax.shapes import Array, Float


def einsum_to_float32(
    spec: str,
    a: Float[Array, "..."],
    b: Float[Array, "..."],
    precision: jax.lax.Precision | None = None,
) -> Array:
    """``jnp.einsum(spec, a, b)`` in float32, for a spec whose indices each stand in two of its three parts or in all.

    Left to itself, JAX multiplies the float32 gradient of the result with ``a`` and ``b`` in float32. For logits that must have no
    shortcuts these are products of six passes on a TPU, and slow ones on a GPU. The gradient is rounded to the type of
    ``a`` and ``b`` instead, as that of every other product is.
    """
    if a.dtype == jnp.float32:
        return jnp.einsum(spec, a, b, precision=precision)
    return _narrow(spec, a, b)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _narrow(spec: str, a: Array, b: Array) -> Array:
    return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)


def _backward(spec: str, saved: tuple[Array, Array], change: Array) -> tuple[Array, Array]:
    (a, b), change = saved, change.astype(saved[0].dtype)
    inputs, of_out = spec.split("->")
    of_a, of_b = inputs.split(",")
    return jnp.einsum(f"{of_out},{of_b}->{of_a}", change, b), jnp.einsum(
        f"{of_a},{of_out}->{of_b}", a, change
    )


_narrow.defvjp(lambda spec, a, b: (_narrow(spec, a, b), (a, b)), _backward)
