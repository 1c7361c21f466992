"""The Multiway Transformer: shared self-attention, one feed-forward expert per modality (spec section 1.2)."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from flax import struct
from flax.linen import spmd

from vlbeit_jax.models.layers import LAYER_NORM_EPS, Attention, Expert, LayerNorm, concatenate_axis1, drop_path, partitioned
from vlbeit_jax.ops.position import relative_index, table_rows
from vlbeit_jax.shapes import Array, Bool, Float
from vlbeit_jax.types import Layout, Modality


@struct.dataclass
class Tokens:
    """One token array with a static layout: which run of tokens is of which modality."""

    x: Float[Array, "B L D"]
    valid: Bool[Array, "B L"] | None
    layout: Layout = struct.field(pytree_node=False)

    def segment(self, modality: Modality) -> Float[Array, "B S D"]:
        """The tokens of one modality."""
        start = 0
        for found, length in self.layout:
            if found is modality:
                return self.x[:, start : start + length]
            start += length
        raise KeyError(modality)


def join(parts: list[Tokens]) -> Tokens:
    """Parts of one batch in sequence; tokens without a validity are all valid."""
    valid = None
    if any(part.valid is not None for part in parts):
        valid = concatenate_axis1([jnp.ones(p.x.shape[:2], bool) if p.valid is None else p.valid for p in parts])
    return Tokens(concatenate_axis1([p.x for p in parts]), valid, sum((p.layout for p in parts), ()))


class Block(nn.Module):
    """One pre-normalised block; a pair in a fused block goes through the vision-language expert."""

    heads: int
    ffn_width: int
    block: int
    fused: bool
    layer_scale: float
    drop_path: float
    dtype: jnp.dtype
    eps: float = LAYER_NORM_EPS
    quick_gelu: bool = False

    @nn.compact
    def __call__(self, tokens: Tokens, bias: Float[Array, "H L L"] | None, train: bool) -> Tokens:
        """Returns the tokens after attention and experts, each added as a residual."""
        x = tokens.x
        normed = LayerNorm(self.dtype, self.eps, name="attention_norm")(x)
        mixed = Attention(self.heads, self.block, self.dtype, name="attention")(normed, tokens.valid, bias)
        x = x + self._residual(mixed, "attention_scale", train)
        x = x + self._residual(self._experts(dataclasses.replace(tokens, x=x)), "expert_scale", train)
        return dataclasses.replace(tokens, x=spmd.with_logical_constraint(x, ("batch", None, None)))

    def _experts(self, tokens: Tokens) -> Float[Array, "B L D"]:
        if self.fused and len(tokens.layout) > 1:
            return self._expert("vision_language")(tokens.x)
        return concatenate_axis1([self._expert(modality)(tokens.segment(modality)) for modality, _ in tokens.layout])

    def _expert(self, name: str) -> Expert:
        return Expert(self.ffn_width, self.block, self.dtype, self.eps, self.quick_gelu, name=str(name))

    def _residual(self, x: Float[Array, "B L D"], scale: str, train: bool) -> Float[Array, "B L D"]:
        if self.layer_scale:
            init = nn.initializers.constant(self.layer_scale)
            x = x * self.param(scale, partitioned(init, "embed"), (x.shape[-1],)).astype(x.dtype)
        key = self.make_rng("drop_path") if train and self.drop_path else None
        return drop_path(x, self.drop_path, key).astype(jnp.float32)


class Multiway(nn.Module):
    """A stack of blocks and the final normalisation.

    With ``relative_grid`` a learned bias per head and layer is added to the attention logits: VLMo's joint table over patch
    offsets, text offsets and the two crossings.
    """

    width: int
    depth: int
    heads: int
    ffn_width: int
    fused_layers: int
    layer_scale: float
    drop_path: float
    dtype: jnp.dtype
    relative_grid: int = 0
    relative_text: int = 0
    eps: float = LAYER_NORM_EPS
    quick_gelu: bool = False

    @nn.compact
    def __call__(self, tokens: Tokens, train: bool) -> Tokens:
        """Returns every token's final state (float32)."""
        bias = self._relative_bias(tokens.layout) if self.relative_grid else [None] * self.depth
        for index in range(self.depth):
            tokens = Block(
                heads=self.heads,
                ffn_width=self.ffn_width,
                block=index + 1,
                fused=index >= self.depth - self.fused_layers,
                layer_scale=self.layer_scale,
                drop_path=self.drop_path * index / max(self.depth - 1, 1),
                dtype=self.dtype,
                eps=self.eps,
                quick_gelu=self.quick_gelu,
                name=f"block_{index}",
            )(tokens, bias[index], train)
        return dataclasses.replace(tokens, x=LayerNorm(eps=self.eps, name="norm")(tokens.x))

    def _relative_bias(self, layout: Layout) -> Float[Array, "Z H L L"]:
        shape = (table_rows(self.relative_grid, self.relative_text), self.depth, self.heads)
        table = self.param("relative_positions", partitioned(nn.initializers.zeros, None, None, "heads"), shape)
        index = relative_index(layout, self.relative_grid, self.relative_text)
        return table[index].transpose(2, 3, 0, 1)
