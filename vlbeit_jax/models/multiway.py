"""The Multiway Transformer: shared self-attention, one feed-forward expert per modality (spec section 1.2)."""

import dataclasses
import functools
import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen import spmd

from vlbeit_jax.models.decoupled import DecoupledAttention
from vlbeit_jax.models.layers import (
    LAYER_NORM_EPS,
    Attention,
    Expert,
    LayerNorm,
    concatenate_axis1,
    drop_path,
    partitioned,
    run,
)
from vlbeit_jax.models.tokens import Tokens
from vlbeit_jax.ops.position import relative_index, table_rows
from vlbeit_jax.shapes import Array, Float
from vlbeit_jax.types import Layout, Modality

EXPERTS = {*map(str, Modality), "vision_language"}
# What blocks are called with besides tokens, the first axis is that of blocks: bias, draws, rates of drop path.
Given = tuple[Float[Array, "Z H L L"] | None, Float[Array, "Z B 2"] | None, np.ndarray]


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
      scan: one loop over blocks that route alike, instead of a copy of the block for each.
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
    scan: bool = False

    def experts(self, index: int, layout: Layout) -> tuple[str, ...]:
        """The experts of block ``index`` that see tokens of this layout: one for all of them, or one a modality."""
        if index >= self.depth - self.fused_layers and len(layout) > 1:
            return ("vision_language",)
        return tuple(str(modality) for modality, _ in layout)


class Block(nn.Module):
    """One pre-normalised block; a pair in a fused block goes through the vision-language expert."""

    trunk: Trunk
    index: int

    @nn.compact
    def __call__(
        self,
        tokens: Tokens,
        bias: Float[Array, "H L L"] | None,
        draws: Float[Array, "B 2"] | None,
        rate: float | Float[Array, ""],
    ) -> Tokens:
        """Returns the tokens after attention and experts, each added as a residual; ``draws`` and ``rate`` are for drop path."""

        def residual(x: Float[Array, "B L D"], scale: str, which: int) -> Float[Array, "B L D"]:
            x = self._scaled(x, scale).astype(jnp.float32)
            return x if draws is None else drop_path(x, rate, draws[:, which])

        x = tokens.x + residual(self._attended(tokens, bias), "attention_scale", 0)
        x = x + residual(self._experts(dataclasses.replace(tokens, x=x)), "expert_scale", 1)
        return dataclasses.replace(tokens, x=spmd.with_logical_constraint(x, ("batch", None, None)))

    def _attended(
        self, tokens: Tokens, bias: Float[Array, "H L L"] | None
    ) -> Float[Array, "B L D"]:
        t, block = self.trunk, self.index + 1
        if t.decoupled:
            return DecoupledAttention(
                t.heads, block, t.dtype, t.eps, t.sub_norm, t.attention, name="attention"
            )(tokens, bias)
        normed = LayerNorm(t.dtype, t.eps, name="attention_norm")(tokens.x)
        return Attention(t.heads, block, t.dtype, t.eps, t.sub_norm, t.attention, name="attention")(
            normed, tokens.valid, bias
        )

    def _experts(self, tokens: Tokens) -> Float[Array, "B L D"]:
        names = self.trunk.experts(self.index, tokens.layout)
        parts = (
            [tokens.x]
            if len(names) == 1
            else [tokens.segment(modality) for modality, _ in tokens.layout]
        )
        return concatenate_axis1(
            [self._expert(name)(part) for name, part in zip(names, parts, strict=True)]
        )

    def _expert(self, name: str) -> Expert:
        t = self.trunk
        return Expert(
            t.ffn_width, self.index + 1, t.dtype, t.eps, t.sub_norm, t.quick_gelu, name=name
        )

    def _scaled(self, x: Float[Array, "B L D"], name: str) -> Float[Array, "B L D"]:
        if not self.trunk.layer_scale:
            return x
        init = nn.initializers.constant(self.trunk.layer_scale)
        return x * self.param(name, partitioned(init, "embed"), (x.shape[-1],)).astype(x.dtype)


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
        bias = self._relative_bias(tokens.layout) if t.relative_grid else None
        rates = t.drop_path * np.arange(t.depth) / max(t.depth - 1, 1)
        tokens = self._blocks(
            tokens, (bias, None if draws is None else draws.transpose(1, 0, 2), rates)
        )
        if not t.decoupled:
            return dataclasses.replace(tokens, x=LayerNorm(eps=t.eps, name="norm")(tokens.x))
        parts = [
            LayerNorm(eps=t.eps, name=f"{modality}_norm")(tokens.segment(modality))
            for modality, _ in tokens.layout
        ]
        return dataclasses.replace(tokens, x=concatenate_axis1(parts))

    def _blocks(self, tokens: Tokens, given: Given) -> Tokens:
        t, block = self.trunk, Block
        if t.remat != "none":
            policy = (
                jax.checkpoint_policies.dots_with_no_batch_dims_saveable
                if t.remat == "dots"
                else None
            )
            block = nn.remat(Block, policy=policy, prevent_cse=not t.scan)
        if t.scan and not self.is_initializing():
            for _, alike in itertools.groupby(
                range(t.depth), functools.partial(t.experts, layout=tokens.layout)
            ):
                tokens = self._looped(block, list(alike), tokens, given)
            return tokens
        for index in range(t.depth):
            tokens = block(t, index, name=f"block_{index}")(tokens, *_at(index, given))
        return tokens

    def _looped(
        self, block: type[Block], indices: list[int], tokens: Tokens, given: Given
    ) -> Tokens:
        """Runs consecutive blocks of the same experts as one loop.

        Parameters are stacked here and now, and are kept, initialised and updated block by block as ever. Experts that see no
        token stay out of it.
        """
        first, last = indices[0], indices[-1]
        unused = EXPERTS - {*self.trunk.experts(first, tokens.layout)}
        blocks = [self.get_variable("params", f"block_{index}") for index in indices]
        blocks = [
            {name: leaves for name, leaves in each.items() if name not in unused} for each in blocks
        ]
        network = block(self.trunk, first, parent=None)

        def body(x: Array, own: tuple) -> tuple[Array, None]:
            return run(network, own[0], dataclasses.replace(tokens, x=x), *own[1:]).x, None

        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)
        x, _ = jax.lax.scan(body, tokens.x, (stacked, *_at(slice(first, last + 1), given)))
        return dataclasses.replace(tokens, x=x)

    def _relative_bias(self, layout: Layout) -> Float[Array, "Z H L L"]:
        t = self.trunk
        shape = (table_rows(t.relative_grid, t.relative_text), t.depth, t.heads)
        table = self.param(
            "relative_positions", partitioned(nn.initializers.zeros, None, None, "heads"), shape
        )
        return table[relative_index(layout, t.relative_grid, t.relative_text)].transpose(2, 3, 0, 1)


def _at(where: int | slice, given: Given) -> tuple[Any, Any, Any]:
    return jax.tree.map(lambda each: each[where], given)
