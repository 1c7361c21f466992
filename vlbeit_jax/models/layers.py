"""Building blocks that own parameters. Each parameter declares its facts where it is created."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlbeit_jax.models.earlier import has_earlier, with_earlier
from vlbeit_jax.models.params import FLOAT32, declare
from vlbeit_jax.ops.attention import (
    attention,
    attention_by_parts,
    choose_implementation,
    group_by_lanes,
    ungroup,
)
from vlbeit_jax.ops.device import on_tpu
from vlbeit_jax.ops.einsum import einsum_to_float32
from vlbeit_jax.ops.gelu import gelu
from vlbeit_jax.shapes import Array, Bool, Float

LAYER_NORM_EPS = 1e-6
zeros, ones = nn.initializers.zeros, nn.initializers.ones


def beit_init(depth: int = 0) -> nn.initializers.Initializer:
    """Returns BEiT's initializer: normal with standard deviation 0.02, cut at one of them.

    Args:
      depth: number of the block, from 1, for output projections, which start 1 / sqrt(2 depth)
        times as large (BEiT); 0 for everything else.
    """
    law = nn.initializers.truncated_normal(stddev=0.02, lower=-1.0, upper=1.0)
    scale = (2 * depth) ** -0.5 if depth else 1.0
    return lambda key, shape, dtype=jnp.float32: law(key, shape, dtype) * scale


class Linear(nn.Module):
    """An affine map of the last axis, with float32 parameters and products in ``dtype``.

    Attributes:
      features: of the result.
      axes: logical axes of the kernel.
      dtype: of the product's operands, and of the result.
      init: of the kernel.
      exact: sum products and return results in float32 whatever ``dtype`` is, as for logits. With
        float32 operands, multiply in full precision too.
      bias: whether there is one.
    """

    features: int
    axes: tuple[str | None, str | None]
    dtype: jnp.dtype = FLOAT32
    init: nn.initializers.Initializer = beit_init()
    exact: bool = False
    bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
        """Returns ``x @ kernel``, plus the bias."""
        init = declare(self.init, *self.axes, decay=True, dtype=self.dtype)
        kernel = self.param("kernel", init, (x.shape[-1], self.features))
        out = FLOAT32 if self.exact else self.dtype
        x = matmul(x.astype(self.dtype), kernel.astype(self.dtype), self.exact)
        if not self.bias:
            return x
        bias = self.param("bias", declare(zeros, self.axes[1]), (self.features,))
        return x + bias.astype(out)


class LayerNorm(nn.Module):
    """Layer normalisation with float32 statistics and a two-pass variance."""

    dtype: jnp.dtype = FLOAT32
    eps: float = LAYER_NORM_EPS
    axis: str = "embed"

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Returns the normalised activations in ``dtype``."""
        scale = self.param("scale", declare(ones, self.axis), (x.shape[-1],))
        bias = self.param("bias", declare(zeros, self.axis), (x.shape[-1],))
        x = x.astype(jnp.float32)
        # Two passes: E[x^2] - E[x]^2 cancels where the mean is large.
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = jnp.square(centred).mean(axis=-1, keepdims=True)
        return (centred * jax.lax.rsqrt(variance + self.eps) * scale + bias).astype(self.dtype)


class Attention(nn.Module):
    """Multi-head self-attention: one projection, with biases on query and value (BEiT, VLMo).

    A bias on keys adds the same number to all logits of a query, so the softmax cancels it.
    """

    heads: int
    block: int
    dtype: jnp.dtype
    eps: float = LAYER_NORM_EPS
    sub_norm: bool = False
    implementation: str = "auto"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B L D"],
        valid: Bool[Array, "B L"] | None,
        bias: Float[Array, "H L keys"] | None,
        mask: Bool[Array, "L keys"] | None = None,
    ) -> Float[Array, "B L D"]:
        """Mixes the tokens of each row.

        Args:
          x: normalised tokens.
          valid: True where a key may be attended to.
          bias: added to the logits.
          mask: True where a query may see a key, the same for all rows. If tokens were read before
            (``models.earlier``), they are the first keys.
        """
        width = x.shape[-1]
        per_head = (self.heads, width // self.heads)
        # The columns are in the order of ``group_by_lanes``.
        in_init = declare(beit_init(), "embed", "heads", decay=True, dtype=self.dtype)
        kernel = self.param("qkv", in_init, (width, 3 * width))
        query_bias = self.param("query_bias", declare(zeros, "heads", "head"), per_head)
        value_bias = self.param("value_bias", declare(zeros, "heads", "head"), per_head)
        out_init = declare(
            beit_init(self.block), "heads", "head", "embed", decay=True, dtype=self.dtype
        )
        out = self.param("out", out_init, (*per_head, width))
        out_bias = self.param("out_bias", declare(zeros, "embed"), (width,))

        # Keys have no bias: it would add the same to all logits of a query.
        shift = group_by_lanes(
            query_bias.reshape(width), jnp.zeros(width), value_bias.reshape(width), self.heads
        )
        mixed = self._mixed(
            x.astype(self.dtype), kernel.astype(self.dtype), shift, valid, bias, mask
        )
        if self.sub_norm:
            mixed = LayerNorm(self.dtype, self.eps, name="inner_norm")(mixed)
        mixed = matmul(mixed, out.astype(self.dtype).reshape(width, width))
        return mixed + out_bias.astype(self.dtype)

    def _mixed(
        self,
        x: Float[Array, "B L D"],
        kernel: Float[Array, "D Q"],
        shift: Float[Array, " Q"],
        valid: Bool[Array, "B L"] | None,
        bias: Float[Array, "H L keys"] | None,
        mask: Bool[Array, "L keys"] | None,
    ) -> Float[Array, "B L D"]:
        """Projects tokens and mixes them; ``shift`` are the biases of the projection."""
        implementation = choose_implementation(
            self.implementation,
            x.shape[1],
            x.shape[2],
            self.heads,
            self.dtype,
            biased=bias is not None,
            masked=mask is not None,
        )
        if implementation == "cudnn":
            # cuDNN reads three arrays: three products write them where it needs them.
            kernels = ungroup(kernel, self.heads)
            shifts = ungroup(shift.astype(self.dtype), self.heads)
            query, key, value = (
                matmul(x, kernel) + shift for kernel, shift in zip(kernels, shifts, strict=True)
            )
        elif has_earlier(self):
            # More keys than queries do not fit into one array of all three.
            query, key, value = ungroup(matmul(x, kernel) + shift.astype(self.dtype), self.heads)
            key, value, valid = with_earlier(self, key, value, valid)
        else:
            # The biases are not added here, because our kernel computes their gradients too.
            projected = matmul(x, kernel)
            return attention(projected, shift, self.heads, valid, bias, mask, implementation)
        return attention_by_parts(query, key, value, self.heads, valid, bias, mask, implementation)


class FeedForward(nn.Module):
    """The expert of a modality: its own normalisation and feed-forward network.

    The activation is the exact GELU, or CLIP's approximation x sigmoid(1.702 x).
    """

    ffn_width: int
    block: int
    dtype: jnp.dtype
    eps: float = LAYER_NORM_EPS
    sub_norm: bool = False
    quick_gelu: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        """Returns what is added to the tokens that are routed here."""
        normed = LayerNorm(self.dtype, self.eps, name="norm")(x)
        hidden = Linear(self.ffn_width, ("embed", "ffn"), self.dtype, name="up")(normed)
        hidden = hidden * jax.nn.sigmoid(1.702 * hidden) if self.quick_gelu else gelu(hidden)
        if self.sub_norm:
            hidden = LayerNorm(self.dtype, self.eps, "ffn", name="inner_norm")(hidden)
        init = beit_init(self.block)
        return Linear(x.shape[-1], ("ffn", "embed"), self.dtype, init, name="down")(hidden)


class TanhProjection(nn.Module):
    """Linear, tanh, linear in float32: VQ-KD's way into the codebook and out to the teacher."""

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N E"]:
        """Returns the projection of every token."""
        hidden = jnp.tanh(Linear(x.shape[-1], ("embed", None), exact=True, name="inner")(x))
        return Linear(self.features, (None, None), exact=True, name="outer")(hidden)


def matmul(
    x: Float[Array, "*B I"], kernel: Float[Array, "I O"], exact: bool = False
) -> Float[Array, "*B O"]:
    """Returns ``x @ kernel``; with ``exact``, in float32 and in full precision.

    On a TPU the rows keep their shape, so that XLA can fuse what happens to them before and after
    into the product. Elsewhere they become one matrix: XLA for CPUs takes 2 to 4 times as long over
    three dimensions.
    """
    rows = x if on_tpu() else x.reshape(-1, x.shape[-1])
    if exact:
        axes = "abc"[: rows.ndim - 1]
        equation, precision = f"{axes}i,io->{axes}o", jax.lax.Precision.HIGHEST
        out = einsum_to_float32(equation, rows, kernel, precision)
    else:
        out = rows @ kernel
    return out.reshape(*x.shape[:-1], kernel.shape[-1])


def drop_path(
    x: Float[Array, "B L D"], rate: float | Float[Array, ""], draws: Float[Array, " B"]
) -> Float[Array, "B L D"]:
    """Stochastic depth: drops the residual of a whole row where its draw is below ``rate``.

    Residuals that are kept are divided by ``1 - rate``, which keeps their mean.
    """
    return jnp.where(draws[:, None, None] >= rate, x / (1 - rate), 0)


def matmul_dtype(name: str) -> jnp.dtype:
    """Returns the dtype of matmuls: as named; "auto" is bfloat16 on accelerators, else float32."""
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jnp.dtype(name)


def concatenate_axis1(parts: Sequence[Array]) -> Array:
    """Concatenates sequences of the same batch; a single one is returned as it is."""
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)
