"""Building blocks that own parameters. Each names its logical axes where it is created; the sharding table does the rest."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

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
VOCABULARY_MULTIPLE = 128
MULTIPLIED = {
    "kernel",
    "qkv",
    "out",
}  # Last names of the parameters that take part in matrix products.


def beit_init(depth: int = 0) -> nn.initializers.Initializer:
    """Normal of deviation .02 cut at one sigma, as in BEiT; output projections of block ``depth`` / sqrt(2 depth) (spec 1.6)."""
    law = nn.initializers.truncated_normal(stddev=0.02, lower=-1.0, upper=1.0)
    scale = (2 * depth) ** -0.5 if depth else 1.0
    return lambda key, shape, dtype=jnp.float32: law(key, shape, dtype) * scale


def partitioned(
    init: nn.initializers.Initializer, *axes: str | None
) -> nn.initializers.Initializer:
    """An initialiser that records a logical axis per dimension; names are in ``training.sharding.RULES``."""
    return nn.with_logical_partitioning(init, axes)


def padded_vocabulary(size: int) -> int:
    """Rows of embedding and head: the next multiple of 128 (TPU tiles); the extra rows can never be predicted."""
    return -(-size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE


def zero_from(
    init: nn.initializers.Initializer, start: int, axis: int
) -> nn.initializers.Initializer:
    """``init`` with zeros from ``start`` on along an axis; no gradient moves rows that pad a vocabulary, so they stay zero."""

    def padded(key: Array, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        real = jnp.arange(shape[axis]) < start
        return jnp.where(
            jnp.expand_dims(real, [other for other in range(len(shape)) if other != axis]),
            init(key, shape, dtype),
            0,
        )

    return padded


class Linear(nn.Module):
    """An affine map of the last axis: float32 parameters, matmul in ``dtype``.

    ``exact`` gives float32 results whatever ``dtype`` is (logits), and with float32 inputs no shortcuts in the matmul either.
    """

    features: int
    axes: tuple[str | None, str | None]
    dtype: jnp.dtype = jnp.dtype(jnp.float32)
    init: nn.initializers.Initializer = beit_init()
    exact: bool = False
    bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
        """Returns ``x @ kernel``, and the bias added to it."""
        kernel = self.param(
            "kernel", partitioned(self.init, *self.axes), (x.shape[-1], self.features)
        )
        out = jnp.dtype(jnp.float32) if self.exact else self.dtype
        x = matmul(x.astype(self.dtype), kernel.astype(self.dtype), self.exact)
        if not self.bias:
            return x
        return x + self.param(
            "bias", partitioned(nn.initializers.zeros, self.axes[1]), (self.features,)
        ).astype(out)


class LayerNorm(nn.Module):
    """Layer normalisation with float32 statistics and a two-pass variance."""

    dtype: jnp.dtype = jnp.dtype(jnp.float32)
    eps: float = LAYER_NORM_EPS
    axis: str = "embed"

    @nn.compact
    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Returns the normalised activations in ``dtype``."""
        scale = self.param("scale", partitioned(nn.initializers.ones, self.axis), (x.shape[-1],))
        bias = self.param("bias", partitioned(nn.initializers.zeros, self.axis), (x.shape[-1],))
        x = x.astype(jnp.float32)
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = jnp.square(centred).mean(axis=-1, keepdims=True)
        return (centred * jax.lax.rsqrt(variance + self.eps) * scale + bias).astype(self.dtype)


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection and biases on query and value only (as BEiT and VLMo)."""

    heads: int
    block: int
    dtype: jnp.dtype
    eps: float = LAYER_NORM_EPS
    sub_norm: bool = False
    how: str = "auto"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B L D"],
        valid: Bool[Array, "B L"] | None,
        bias: Float[Array, "H L L"] | None,
    ) -> Float[Array, "B L D"]:
        """Mixes the tokens of each row; ``valid`` masks keys, ``bias`` is added to the logits."""
        width = x.shape[-1]
        per_head = (self.heads, width // self.heads)
        # Its columns are in the order of ``group_by_lanes``.
        kernel = self.param("qkv", partitioned(beit_init(), "embed", "heads"), (width, 3 * width))
        query_bias = self.param(
            "query_bias", partitioned(nn.initializers.zeros, "heads", "head"), per_head
        )
        value_bias = self.param(
            "value_bias", partitioned(nn.initializers.zeros, "heads", "head"), per_head
        )
        out = self.param(
            "out", partitioned(beit_init(self.block), "heads", "head", "embed"), (*per_head, width)
        )
        out_bias = self.param("out_bias", partitioned(nn.initializers.zeros, "embed"), (width,))

        shift = group_by_lanes(
            query_bias.reshape(width), jnp.zeros(width), value_bias.reshape(width), self.heads
        )
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        how = choose_implementation(
            self.how, x.shape[1], width, self.heads, self.dtype, bias is not None
        )
        if how == "cudnn":
            kernels, shifts = (
                ungroup(kernel, self.heads),
                ungroup(shift.astype(self.dtype), self.heads),
            )
            query, key, value = (
                matmul(x, each) + own for each, own in zip(kernels, shifts, strict=True)
            )
            mixed = attention_by_parts(query, key, value, self.heads, valid, bias, how)
        else:
            mixed = attention(matmul(x, kernel), shift, self.heads, valid, bias, how)
        if self.sub_norm:
            mixed = LayerNorm(self.dtype, self.eps, name="inner_norm")(mixed)
        return matmul(mixed, out.astype(self.dtype).reshape(width, width)) + out_bias.astype(
            self.dtype
        )


class Expert(nn.Module):
    """A modality's own normalisation and feed-forward network: erf GELU, or CLIP's quick one, x sigmoid(1.702 x)."""

    ffn_width: int
    block: int
    dtype: jnp.dtype
    eps: float = LAYER_NORM_EPS
    sub_norm: bool = False
    quick_gelu: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        """Returns the residual of the tokens that are routed here."""
        hidden = Linear(self.ffn_width, ("embed", "ffn"), self.dtype, name="up")(
            LayerNorm(self.dtype, self.eps, name="norm")(x)
        )
        hidden = hidden * jax.nn.sigmoid(1.702 * hidden) if self.quick_gelu else gelu(hidden)
        if self.sub_norm:
            hidden = LayerNorm(self.dtype, self.eps, "ffn", name="inner_norm")(hidden)
        return Linear(
            x.shape[-1], ("ffn", "embed"), self.dtype, beit_init(self.block), name="down"
        )(hidden)


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
    """``x @ kernel``; ``exact``: in float32 whatever the inputs' type is, and without shortcuts.

    On a TPU rows stay as they are, so that what is done to them before and after becomes part of the product. Elsewhere they are one
    two-dimensional matrix: XLA's CPU backend takes 2 to 4 times as long over three dimensions.
    """
    rows = x if on_tpu() else x.reshape(-1, x.shape[-1])
    axes = "abc"[: rows.ndim - 1]
    out = (
        einsum_to_float32(f"{axes}i,io->{axes}o", rows, kernel, jax.lax.Precision.HIGHEST)
        if exact
        else rows @ kernel
    )
    return out.reshape(*x.shape[:-1], kernel.shape[-1])


def drop_path(
    x: Float[Array, "B L D"], rate: float | Float[Array, ""], draws: Float[Array, "B"]
) -> Float[Array, "B L D"]:
    """Stochastic depth: drops a residual for a whole example where its draw is below ``rate``, scales the kept ones up."""
    return jnp.where(draws[:, None, None] >= rate, x / (1 - rate), 0)


def run(network: nn.Module, params: Any, *inputs: Any, **options: Any) -> Any:
    """Calls a network as a pure function of its parameters; options go to the call."""
    return network.apply({"params": params}, *inputs, **options)


def matmul_dtype(name: str) -> jnp.dtype:
    """The type of matmuls: as named, or for "auto" bfloat16 on accelerators and float32 on CPU."""
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jnp.dtype(name)


def concatenate_axis1(parts: Sequence[Array]) -> Array:
    """Joins sequences of the same batch; one part is returned as it is."""
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)
