"""One block of a Multiway Transformer, and the configuration of a whole one."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from flax.linen import spmd

from vlbeit_jax.models.decoupled import DecoupledAttention
from vlbeit_jax.models.layers import (
    LAYER_NORM_EPS,
    Attention,
    FeedForward,
    LayerNorm,
    concatenate_axis1,
    drop_path,
)
from vlbeit_jax.models.params import declare
from vlbeit_jax.models.tokens import Tokens
from vlbeit_jax.ops.device import row_major
from vlbeit_jax.shapes import Array, Float
from vlbeit_jax.types import Layout


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Sizes and variants of a Multiway Transformer.

    Attributes:
      width, depth, heads, ffn_width: sizes.
      dtype: of the products.
      fused_layers: top blocks where a pair goes through the vision-language expert.
      layer_scale: initial LayerScale; 0: none.
      drop_path: rate of the last block, linear from 0 at the first.
      relative_grid, relative_text: patches along a side and longest text of VLMo's joint table of
        relative positions; 0: no attention bias.
      eps: of every norm.
      sub_norm: norms inside attention and experts too (BEiT-3).
      decoupled: projections and norms of attention per modality (BEiT-3).
      quick_gelu: CLIP's activation.
      final_norm: whether there is a norm after the last block.
      attention: its implementation, see ``ops.attention``.
      remat: what the backward pass computes again: "none", "dots" (everything but products with
        weights) or "full" (whole blocks).
      scan: whether blocks that route alike run as one loop.
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
    final_norm: bool = True
    attention: str = "auto"
    remat: str = "none"
    scan: bool = False

    def experts(self, index: int, layout: Layout) -> tuple[str, ...]:
        """Returns the experts of block ``index``: one for all tokens, or one per modality."""
        if index >= self.depth - self.fused_layers and len(layout) > 1:
            return ("vision_language",)
        return tuple(str(modality) for modality, _ in layout)


class Block(nn.Module):
    """One pre-normalised block; a pair in a fused block goes through the vision-language expert."""

    config: EncoderConfig
    index: int

    @nn.compact
    def __call__(
        self,
        tokens: Tokens,
        bias: Float[Array, "H L keys"] | None,
        draws: Float[Array, "B 2"] | None,
        rate: float | Float[Array, ""],
    ) -> Tokens:
        """Returns the tokens after attention and experts, each added as a residual.

        Args:
          tokens: of the previous block, float32.
          bias: added to the attention logits.
          draws: uniform draws of drop path, for attention and experts; None: nothing is dropped.
          rate: of drop path.
        """
        tokens = dataclasses.replace(tokens, x=row_major(tokens.x))
        for_attention, for_experts = (None, None) if draws is None else (draws[:, 0], draws[:, 1])
        attended = self._attended(tokens, bias)
        x = row_major(tokens.x + self._residual(attended, "attention_scale", rate, for_attention))
        of_experts = self._experts(dataclasses.replace(tokens, x=x))
        x = x + self._residual(of_experts, "expert_scale", rate, for_experts)
        return dataclasses.replace(tokens, x=spmd.with_logical_constraint(x, ("batch", None, None)))

    def _attended(
        self, tokens: Tokens, bias: Float[Array, "H L keys"] | None
    ) -> Float[Array, "B L D"]:
        c = self.config
        shared: dict[str, Any] = {
            "heads": c.heads,
            "block": self.index + 1,
            "dtype": c.dtype,
            "eps": c.eps,
            "sub_norm": c.sub_norm,
            "implementation": c.attention,
        }
        if c.decoupled:
            return DecoupledAttention(**shared, name="attention")(tokens, bias)
        normed = LayerNorm(c.dtype, c.eps, name="attention_norm")(tokens.x)
        return Attention(**shared, name="attention")(normed, tokens.valid, bias, tokens.mask)

    def _experts(self, tokens: Tokens) -> Float[Array, "B L D"]:
        names = self.config.experts(self.index, tokens.layout)
        parts = [tokens.x]
        if len(names) > 1:
            parts = [tokens.segment(modality) for modality, _ in tokens.layout]
        return concatenate_axis1(
            [self._expert(name)(part) for name, part in zip(names, parts, strict=True)]
        )

    def _expert(self, name: str) -> FeedForward:
        c = self.config
        return FeedForward(
            ffn_width=c.ffn_width,
            block=self.index + 1,
            dtype=c.dtype,
            eps=c.eps,
            sub_norm=c.sub_norm,
            quick_gelu=c.quick_gelu,
            name=name,
        )

    def _residual(
        self,
        x: Float[Array, "B L D"],
        scale: str,
        rate: float | Float[Array, ""],
        draws: Float[Array, " B"] | None,
    ) -> Float[Array, "B L D"]:
        # States are summed over all blocks in float32; only what a block computes is rounded.
        x = self._scaled(x, scale).astype(jnp.float32)
        return x if draws is None else drop_path(x, rate, draws)

    def _scaled(self, x: Float[Array, "B L D"], name: str) -> Float[Array, "B L D"]:
        if not self.config.layer_scale:
            return x
        init = declare(nn.initializers.constant(self.config.layer_scale), "embed")
        return x * self.param(name, init, (x.shape[-1],)).astype(x.dtype)
