"""The Multiway Transformer: shared self-attention, one feed-forward expert per modality (spec section 1.2)."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen import spmd

from vlbeit_jax.models.decoupled import DecoupledAttention
from vlbeit_jax.models.layers import LAYER_NORM_EPS, Attention, Expert, LayerNorm, concatenate_axis1, drop_path, partitioned
from vlbeit_jax.models.tokens import Tokens
from vlbeit_jax.ops.position import relative_index, table_rows
from vlbeit_jax.shapes import Array, Float
from vlbeit_jax.types import Layout


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trunk:
    """What a Multiway Transformer is made of.

    Attributes:
      width, depth, heads, ffn_width: sizes.
      dtype: of matmuls.
      fused_layers: top blocks where a pair goes through the vision-language expert.
      layer_scale: its start; 0: none.
      drop_path: of the last block, linear from 0.
      relative_grid, relative_text: patches along a side and longest text of VLMo's joint bias table; 0: no bias.
      eps: of every norm.
      sub_norm: norms inside attention and experts too (BEiT-3).
      decoupled: projections and norms of attention per modality (BEiT-3).
      quick_gelu: CLIP's activation.
      attention: how it is computed, see ``ops.attention``.
      remat: what backward computes again: "none", "dots" (all but products with weights), "full" (whole blocks).
    """

    width: int
    depth: int
    heads: int
    ffn_width: int
    dtype: jnp.dtype
    fused_layers: int = 0
    layer_scale: float = 0.0
    drop_path: float = 0.0
    relative_grid: int = 0
    relative_text: int = 0
    eps: float = LAYER_NORM_EPS
    sub_norm: bool = False
    decoupled: bool = False
    quick_gelu: bool = False
    attention: str = "auto"
    remat: str = "none"


class Block(nn.Module):
    """One pre-normalised block; a pair in a fused block goes through the vision-language expert."""

    trunk: Trunk
    index: int

    @nn.compact
    def __call__(self, tokens: Tokens, bias: Float[Array, "H L L"] | None, draws: Float[Array, "B 2"] | None) -> Tokens:
        """Returns the tokens after attention and experts, each added as a residual; ``draws`` are for drop path."""
        x = tokens.x + self._residual(self._attended(tokens, bias), "attention_scale", None if draws is None else draws[:, 0])
        x = x + self._residual(self._experts(dataclasses.replace(tokens, x=x)), "expert_scale", None if draws is None else draws[:, 1])
        return dataclasses.replace(tokens, x=spmd.with_logical_constraint(x, ("batch", None, None)))

    def _attended(self, tokens: Tokens, bias: Float[Array, "H L L"] | None) -> Float[Array, "B L D"]:
        t, block = self.trunk, self.index + 1
        if t.decoupled:
            return DecoupledAttention(t.heads, block, t.dtype, t.eps, t.sub_norm, t.attention, name="attention")(tokens, bias)
        normed = LayerNorm(t.dtype, t.eps, name="attention_norm")(tokens.x)
        return Attention(t.heads, block, t.dtype, t.eps, t.sub_norm, t.attention, name="attention")(normed, tokens.valid, bias)

    def _experts(self, tokens: Tokens) -> Float[Array, "B L D"]:
        if self.index >= self.trunk.depth - self.trunk.fused_layers and len(tokens.layout) > 1:
            return self._expert("vision_language")(tokens.x)
        return concatenate_axis1([self._expert(modality)(tokens.segment(modality)) for modality, _ in tokens.layout])

    def _expert(self, name: str) -> Expert:
        t = self.trunk
        return Expert(t.ffn_width, self.index + 1, t.dtype, t.eps, t.sub_norm, t.quick_gelu, name=str(name))

    def _residual(self, x: Float[Array, "B L D"], scale: str, draws: Float[Array, "B"] | None) -> Float[Array, "B L D"]:
        t = self.trunk
        if t.layer_scale:
            init = nn.initializers.constant(t.layer_scale)
            x = x * self.param(scale, partitioned(init, "embed"), (x.shape[-1],)).astype(x.dtype)
        rate = t.drop_path * self.index / max(t.depth - 1, 1)
        x = x.astype(jnp.float32)
        return x if draws is None or rate == 0 else drop_path(x, rate, draws)


class Multiway(nn.Module):
    """A stack of blocks and the final normalisation.

    With a relative grid a learned bias per head and layer is added to the attention logits: VLMo's joint table over patch
    offsets, text offsets and the two crossings.
    """

    trunk: Trunk

    @nn.compact
    def __call__(self, tokens: Tokens, draws: Float[Array, "B Z 2"] | None = None) -> Tokens:
        """Returns every token's final state (float32); ``draws`` in [0, 1) decide on drop path, None: nothing is dropped."""
        t = self.trunk
        bias = self._relative_bias(tokens.layout) if t.relative_grid else [None] * t.depth
        block = Block
        if t.remat != "none":
            policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable if t.remat == "dots" else None
            block = nn.remat(Block, policy=policy)
        for index in range(t.depth):
            tokens = block(t, index, name=f"block_{index}")(tokens, bias[index], None if draws is None else draws[:, index])
        if not t.decoupled:
            return dataclasses.replace(tokens, x=LayerNorm(eps=t.eps, name="norm")(tokens.x))
        parts = [LayerNorm(eps=t.eps, name=f"{modality}_norm")(tokens.segment(modality)) for modality, _ in tokens.layout]
        return dataclasses.replace(tokens, x=concatenate_axis1(parts))

    def _relative_bias(self, layout: Layout) -> Float[Array, "Z H L L"]:
        t = self.trunk
        shape = (table_rows(t.relative_grid, t.relative_text), t.depth, t.heads)
        table = self.param("relative_positions", partitioned(nn.initializers.zeros, None, None, "heads"), shape)
        return table[relative_index(layout, t.relative_grid, t.relative_text)].transpose(2, 3, 0, 1)
