"""Resizes and pools maps of features. Both are separable: one constant matrix per axis."""

import jax
import jax.numpy as jnp
import numpy as np

from vlbeit_jax.ops.einsum import einsum_to_float32
from vlbeit_jax.shapes import Array, Float


def linear_matrix(source: int, target: int) -> Float[np.ndarray, "O I"]:
    """Returns the weight of each source place in each target place; rows sum to 1.

    Equals PyTorch's ``interpolate(mode="bilinear", align_corners=False)`` along one axis, which
    does not antialias.
    """
    centre = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    first = np.minimum(np.floor(centre).astype(int), max(source - 2, 0))
    weights, rows = np.zeros((target, source)), np.arange(target)
    np.add.at(weights, (rows, first), 1 - (centre - first))
    np.add.at(weights, (rows, np.minimum(first + 1, source - 1)), centre - first)
    return weights


def pooling_matrix(source: int, bins: int) -> Float[np.ndarray, "O I"]:
    """Returns the weight of each source place in each bin; rows sum to 1.

    Equals PyTorch's ``adaptive_avg_pool2d`` along one axis: where the bins do not divide the
    places, neighbouring bins share some.
    """
    weights = np.zeros((bins, source))
    for index in range(bins):
        first, last = index * source // bins, -(-(index + 1) * source // bins)
        weights[index, first:last] = 1 / (last - first)
    return weights


def resize_map(
    x: Float[Array, "B h w C"], height: int, width: int
) -> Float[Array, "B height width C"]:
    """Resizes by bilinear interpolation, with float32 sums, in the type of ``x``."""
    if x.shape[1:3] == (height, width):
        return x
    rows, columns = linear_matrix(x.shape[1], height), linear_matrix(x.shape[2], width)
    return _along_both_axes(x, rows, columns)


def pool_map(x: Float[Array, "B h w C"], bins: int) -> Float[Array, "B bins bins C"]:
    """Returns the mean of each of ``bins`` x ``bins`` parts, in the type of ``x``."""
    return _along_both_axes(x, pooling_matrix(x.shape[1], bins), pooling_matrix(x.shape[2], bins))


def _along_both_axes(x: Array, rows: np.ndarray, columns: np.ndarray) -> Array:
    # Float32 products are exact, as logits need; those of bfloat16 are as exact as the map.
    precision = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else None
    for equation, matrix in (("yh,bhwc->bywc", rows), ("xw,bywc->byxc", columns)):
        weights = jnp.asarray(matrix, x.dtype)
        x = einsum_to_float32(equation, weights, x, precision).astype(x.dtype)
    return x
