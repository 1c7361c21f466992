"""The Multiway Transformer: shared self-attention, one feed-forward expert per modality.

VLMo (arXiv 2111.02358), which VL-BEiT builds on.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen import spmd

from vlbeit_jax.models.decoupled import DecoupledAttention
from vlbeit_jax.models.layers import (
    LAYER_NORM_EPS,
    Attention,
    FeedForward,
    LayerNorm,
    concatenate_axis1,
    drop_path,
    zeros,
)
from vlbeit_jax.models.params import declare
from vlbeit_jax.models.tokens import Tokens
from vlbeit_jax.ops.position import relative_index, table_rows
from vlbeit_jax.shapes import Array, Float
from vlbeit_jax.types import Layout, Modality

EXPERTS = {*map(str, Modality), "vision_language"}
# What blocks are called with besides tokens. The first axis is that of blocks: attention bias,
# uniform draws and rates of drop path.
BlockInputs = tuple[Float[Array, "Z H L L"] | None, Float[Array, "Z B 2"] | None, np.ndarray]


class Encoded(NamedTuple):
    """What an encoder returns.

    Attributes:
      tokens: after the last block, normalised if there is a final norm; float32.
      kept: states after the blocks that were asked for, in that order.
    """

    tokens: Tokens
    kept: tuple[Float[Array, "B L D"], ...]


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
        bias: Float[Array, "H L L"] | None,
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

        def residual(x: Float[Array, "B L D"], scale: str, which: int) -> Float[Array, "B L D"]:
            x = self._scaled(x, scale).astype(jnp.float32)
            return x if draws is None else drop_path(x, rate, draws[:, which])

        x = tokens.x + residual(self._attended(tokens, bias), "attention_scale", 0)
        x = x + residual(self._experts(dataclasses.replace(tokens, x=x)), "expert_scale", 1)
        return dataclasses.replace(tokens, x=spmd.with_logical_constraint(x, ("batch", None, None)))

    def _attended(
        self, tokens: Tokens, bias: Float[Array, "H L L"] | None
    ) -> Float[Array, "B L D"]:
        c = self.config
        shared = (c.heads, self.index + 1, c.dtype, c.eps, c.sub_norm, c.attention)
        if c.decoupled:
            return DecoupledAttention(*shared, name="attention")(tokens, bias)
        normed = LayerNorm(c.dtype, c.eps, name="attention_norm")(tokens.x)
        return Attention(*shared, name="attention")(normed, tokens.valid, bias, tokens.mask)

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
        shared = (c.ffn_width, self.index + 1, c.dtype, c.eps, c.sub_norm, c.quick_gelu)
        return FeedForward(*shared, name=name)

    def _scaled(self, x: Float[Array, "B L D"], name: str) -> Float[Array, "B L D"]:
        if not self.config.layer_scale:
            return x
        init = declare(nn.initializers.constant(self.config.layer_scale), "embed")
        return x * self.param(name, init, (x.shape[-1],)).astype(x.dtype)


class Multiway(nn.Module):
    """A stack of blocks, and a final norm if the configuration has one.

    With a relative grid, a learned bias per head and block is added to the attention logits: VLMo's
    joint table over offsets of patches, offsets of words, and the two crossings.
    """

    config: EncoderConfig

    @nn.compact
    def __call__(
        self,
        tokens: Tokens,
        drop_path: Float[Array, "B Z 2"] | None = None,
        keep: Sequence[int] = (),
    ) -> Encoded:
        """Returns the states of all tokens.

        Args:
          tokens: embedded.
          drop_path: uniform draws in [0, 1) per row and block; None: nothing is dropped.
          keep: blocks, counted from 0, whose output is returned as well.
        """
        c = self.config
        assert all(0 <= index < c.depth for index in keep), (keep, c.depth)
        bias = self._relative_bias(tokens.layout) if c.relative_grid else None
        draws = None if drop_path is None else drop_path.transpose(1, 0, 2)
        rates = c.drop_path * np.arange(c.depth) / max(c.depth - 1, 1)
        tokens, kept = self._blocks(tokens, (bias, draws, rates), keep)
        return Encoded(self._normalised(tokens) if c.final_norm else tokens, kept)

    def _normalised(self, tokens: Tokens) -> Tokens:
        c = self.config
        if not c.decoupled:
            return dataclasses.replace(tokens, x=LayerNorm(eps=c.eps, name="norm")(tokens.x))
        parts = [
            LayerNorm(eps=c.eps, name=f"{modality}_norm")(tokens.segment(modality))
            for modality, _ in tokens.layout
        ]
        return dataclasses.replace(tokens, x=concatenate_axis1(parts))

    def _blocks(
        self, tokens: Tokens, given: BlockInputs, keep: Sequence[int]
    ) -> tuple[Tokens, tuple[Array, ...]]:
        c, block, states = self.config, Block, {}
        if c.remat != "none":
            policy = None
            if c.remat == "dots":
                policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
            block = nn.remat(Block, policy=policy, prevent_cse=not c.scan)
        # Initialisation goes block by block, so that each has parameters and values of its own.
        if c.scan and not self.is_initializing():
            for indices in self._loops(tokens.layout, keep):
                tokens = self._loop(block, indices, tokens, given)
                states[indices[-1]] = tokens.x
        else:
            for index in range(c.depth):
                tokens = block(c, index, name=f"block_{index}")(tokens, *_at(index, given))
                states[index] = tokens.x
        return tokens, tuple(states[index] for index in keep)

    def _loops(self, layout: Layout, keep: Sequence[int]) -> list[list[int]]:
        """Splits the blocks into loops: of the same experts, and ending at every kept block."""

        def loop(index: int) -> tuple[Any, int]:
            return self.config.experts(index, layout), sum(kept < index for kept in keep)

        blocks = itertools.groupby(range(self.config.depth), loop)
        return [list(indices) for _, indices in blocks]

    def _loop(
        self, block: type[Block], indices: list[int], tokens: Tokens, given: BlockInputs
    ) -> Tokens:
        """Runs consecutive blocks of the same experts as one ``lax.scan``.

        Stacks the blocks' parameters. The parameter tree and checkpoints still have one entry per
        block. Experts that receive no tokens are left out of the stack.
        """
        first, last = indices[0], indices[-1]
        unused = EXPERTS - {*self.config.experts(first, tokens.layout)}
        blocks = [
            {
                name: leaves
                for name, leaves in self.get_variable("params", f"block_{index}").items()
                if name not in unused
            }
            for index in indices
        ]
        network = block(self.config, first, parent=None)

        def body(x: Array, own: tuple[Any, ...]) -> tuple[Array, None]:
            params, *inputs = own
            here = dataclasses.replace(tokens, x=x)
            after: Any = network.apply({"params": params}, here, *inputs)
            return after.x, None

        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)
        x, _ = jax.lax.scan(body, tokens.x, (stacked, *_at(slice(first, last + 1), given)))
        return dataclasses.replace(tokens, x=x)

    def _relative_bias(self, layout: Layout) -> Float[Array, "Z H L L"]:
        c = self.config
        shape = (table_rows(c.relative_grid, c.relative_text), c.depth, c.heads)
        table = self.param("relative_positions", declare(zeros, None, None, "heads"), shape)
        return table[relative_index(layout, c.relative_grid, c.relative_text)].transpose(2, 3, 0, 1)


def _at(where: int | slice, given: BlockInputs) -> tuple[Any, Any, Any]:
    return jax.tree.map(lambda each: each[where], given)
