"""Matrix products from bfloat16 to float32 whose backward products take bfloat16 as well."""

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
    """``jnp.einsum(spec, a, b)`` with a float32 result.

    JAX would multiply the float32 gradient of the result with ``a`` and ``b`` in float32. At full
    precision, such a product takes six passes on a TPU, and it is slow on a GPU. Here, the gradient
    is first rounded to the type of ``a`` and ``b``, as the gradients of all other products are.

    Args:
      spec: as in ``jnp.einsum``; each index occurs in both inputs, or in one and the output.
      a: bfloat16 or float32.
      b: of the same type.
      precision: of float32 products; bfloat16 products have one precision.
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
