"""Convolutions of maps, and their normalisation over groups of channels or over the batch."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlbeit_jax.models.layers import ones, zeros
from vlbeit_jax.models.params import FLOAT32, declare
from vlbeit_jax.shapes import Array, Float

GROUPS, SMALLEST_GROUP = 32, 4  # Of channels; fewer groups where these would be too small.
EPS = 1e-5  # PyTorch's, for both norms.
GROUP, BATCH = "group", "batch"
MOMENTS = "moments"  # Collection of a batch's means and variances.
he_normal, lecun_normal = nn.initializers.he_normal(), nn.initializers.lecun_normal()
# Mesh axes over which a batch's statistics are taken: () for one device; None: no batch, the
# running statistics are used.
Over = tuple[str, ...] | None


class Norm(nn.Module):
    """Normalises channels, with float32 statistics and a two-pass variance; then scale and bias.

    Over a batch, ``mean`` and ``variance`` are parameters of inference alone: training takes the
    batch's and leaves them in ``MOMENTS``, from which the objective keeps running ones.

    Attributes:
      kind: "group": over a row's places and a group of channels (arXiv 1803.08494). "batch": over
        all rows and places, those on other devices too (arXiv 1502.03167).
      dtype: of the result.
    """

    kind: str
    dtype: jnp.dtype = FLOAT32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"], over: Over = None) -> Float[Array, "B h w C"]:
        """Returns the normalised map."""
        channels = x.shape[-1]
        scale = self.param("scale", declare(ones, "embed"), (channels,))
        bias = self.param("bias", declare(zeros, "embed"), (channels,))
        x = x.astype(jnp.float32)
        if self.kind == GROUP:
            normed = self._by_group(x)
        elif over is None:
            mean = self.param("mean", declare(zeros, None), (channels,))
            variance = self.param("variance", declare(ones, None), (channels,))
            normed = (x - mean) * jax.lax.rsqrt(variance + EPS)
        else:
            mean, variance = self._batch_moments(x, over)
            normed = (x - mean) * jax.lax.rsqrt(variance + EPS)
        return (normed * scale + bias).astype(self.dtype)

    def _by_group(self, x: Array) -> Array:
        channels = x.shape[-1]
        groups = math.gcd(channels, max(min(GROUPS, channels // SMALLEST_GROUP), 1))
        parts = x.reshape(*x.shape[:-1], groups, -1)
        centred = parts - parts.mean(axis=(1, 2, 4), keepdims=True)
        variance = jnp.square(centred).mean(axis=(1, 2, 4), keepdims=True)
        return (centred * jax.lax.rsqrt(variance + EPS)).reshape(x.shape)

    def _batch_moments(self, x: Array, over: tuple[str, ...]) -> tuple[Array, Array]:
        def mean_of(values: Array) -> Array:
            mean = values.mean(axis=(0, 1, 2))
            # Every device has as many rows.
            return jax.lax.pmean(mean, over) if over else mean

        mean = mean_of(x)
        variance = mean_of(jnp.square(x - mean))
        for name, value in (("mean", mean), ("variance", variance)):
            self.variable(MOMENTS, name, lambda value=value: value).value = value
        return mean, variance


class ConvNorm(nn.Module):
    """A convolution without bias, normalisation, ReLU.

    Attributes:
      features: of the result.
      norm: as ``Norm.kind``.
      dtype: of the products' operands, and of the result.
      size: side of the kernel, odd; the map keeps its size.
    """

    features: int
    norm: str
    dtype: jnp.dtype = FLOAT32
    size: int = 3

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"], over: Over = None) -> Float[Array, "B h w D"]:
        """Returns the map of features."""
        init = declare(he_normal, None, None, "embed", None, decay=True, dtype=self.dtype)
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", init, shape).astype(self.dtype)
        x = jax.lax.conv_general_dilated(
            x.astype(self.dtype), kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jax.nn.relu(Norm(self.norm, self.dtype, name="norm")(x, over))


class Doubled(nn.Module):
    """A transposed convolution of 2 x 2 with stride 2: each place becomes four.

    Attributes:
      features: of the result.
      dtype: of the products' operands, and of the result.
    """

    features: int
    dtype: jnp.dtype = FLOAT32

    @nn.compact
    def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B height width D"]:
        """Returns the map at twice the height and width."""
        batch, height, width, channels = x.shape
        init = declare(lecun_normal, None, None, "embed", None, decay=True, dtype=self.dtype)
        kernel = self.param("kernel", init, (2, 2, channels, self.features)).astype(self.dtype)
        bias = self.param("bias", declare(zeros, None), (self.features,)).astype(self.dtype)
        # No two kernels overlap, so one product gives all four. An einsum that gives this order of
        # the axes takes a CPU twice as long, forward and backward.
        matrix = kernel.transpose(2, 0, 1, 3).reshape(channels, -1)
        four = (x.astype(self.dtype) @ matrix).reshape(batch, height, width, 2, 2, -1)
        four = four.transpose(0, 1, 3, 2, 4, 5)
        return four.reshape(batch, 2 * height, 2 * width, self.features) + bias
