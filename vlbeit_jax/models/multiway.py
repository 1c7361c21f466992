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

from vlbeit_jax.models.block import Block, EncoderConfig
from vlbeit_jax.models.layers import LayerNorm, concatenate_axis1, zeros
from vlbeit_jax.models.params import declare, differentiated_under
from vlbeit_jax.models.tokens import Tokens
from vlbeit_jax.ops.attention import choose_implementation
from vlbeit_jax.ops.position import relative_index, table_rows
from vlbeit_jax.shapes import Array, Float, Int
from vlbeit_jax.types import Layout, Modality

EXPERTS = {*map(str, Modality), "vision_language"}
EMBEDDED = -1  # Stands for the states before the first block, among the blocks to keep.
# What blocks are called with besides tokens. The first axis is that of blocks: attention bias,
# uniform draws and rates of drop path.
BlockInputs = tuple[Float[Array, "Z H L keys"] | None, Float[Array, "Z B 2"] | None, np.ndarray]


class Encoded(NamedTuple):
    """What an encoder returns.

    Attributes:
      tokens: after the last block, normalised if there is a final norm; float32.
      kept: states after the blocks that were asked for, in that order.
    """

    tokens: Tokens
    kept: tuple[Float[Array, "B L D"], ...]


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
        relative: Int[np.ndarray, "L keys"] | None = None,
    ) -> Encoded:
        """Returns the states of all tokens.

        Args:
          tokens: embedded.
          drop_path: uniform draws in [0, 1) per row and block; None: nothing is dropped.
          keep: blocks, counted from 0, whose output is returned as well; ``EMBEDDED``: what the
            first block gets.
          relative: row of the table of relative positions for each query and key, if some keys are
            of tokens that were read before; None: the layout tells.
        """
        c = self.config
        assert all(EMBEDDED <= index < c.depth for index in keep), (keep, c.depth)
        bias = None
        if c.relative_grid:
            layout, grid, text = tokens.layout, c.relative_grid, c.relative_text
            bias = self._relative_bias(
                relative_index(layout, grid, text) if relative is None else relative
            )
        draws = None if drop_path is None else drop_path.transpose(1, 0, 2)
        # From 0 in the first block to the full rate in the last one (stochastic depth, as in BEiT).
        rates = c.drop_path * np.arange(c.depth) / max(c.depth - 1, 1)
        length = tokens.x.shape[1]
        padded = with_even_length(tokens) if self._needs_even_length(tokens) else tokens
        padded, kept = self._blocks(padded, (bias, draws, rates), keep)
        tokens = dataclasses.replace(tokens, x=padded.x[:, :length])
        tokens = self._normalised(tokens) if c.final_norm else tokens
        return Encoded(tokens, tuple(x[:, :length] for x in kept))

    def _needs_even_length(self, tokens: Tokens) -> bool:
        """Whether cuDNN computes attention.

        JAX gives it an even number of tokens alone. Padding once is cheaper than in every block.
        """
        c = self.config
        implementation = choose_implementation(
            c.attention,
            tokens.x.shape[1],
            c.width,
            c.heads,
            c.dtype,
            biased=bool(c.relative_grid),
            masked=tokens.mask is not None,
        )
        return implementation == "cudnn"

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
        self, tokens: Tokens, inputs: BlockInputs, keep: Sequence[int]
    ) -> tuple[Tokens, tuple[Array, ...]]:
        """Returns the tokens after all blocks, and the states after those to keep."""
        c, block, states = self.config, Block, {EMBEDDED: tokens.x}
        if c.remat != "none":
            # "full" keeps only the inputs of a block, "dots" also the results of its products.
            policy = None
            if c.remat == "dots":
                policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
            # Without a loop, XLA would recognise what is computed again as computed before, and
            # keep it in memory after all.
            block = nn.remat(Block, policy=policy, prevent_cse=not c.scan)
        # Initialisation goes block by block, so that each has parameters and values of its own.
        if c.scan and not self.is_initializing():
            for indices in self._loops(tokens.layout, keep):
                tokens = self._loop(block, indices, tokens, inputs)
                states[indices[-1]] = tokens.x
        else:
            for index in range(c.depth):
                tokens = block(c, index, name=f"block_{index}")(tokens, *_at(index, inputs))
                states[index] = tokens.x
        return tokens, tuple(states[index] for index in keep)

    def _loops(self, layout: Layout, keep: Sequence[int]) -> list[list[int]]:
        """Splits the blocks into loops.

        The blocks of a loop have the same experts, and the same parameters are trained in each. A
        loop ends at every kept block.
        """
        # One program serves all blocks of a loop. With another expert it would be another program;
        # with one trained block, the backward pass would go through all blocks of the loop; and a
        # state inside a loop cannot be taken out without stacking the states of all blocks.
        path = "/".join(self.path)

        def loop(index: int) -> tuple[Any, ...]:
            trained = differentiated_under(f"{path}/block_{index}")
            return self.config.experts(index, layout), trained, sum(kept < index for kept in keep)

        blocks = itertools.groupby(range(self.config.depth), loop)
        return [list(indices) for _, indices in blocks]

    def _loop(
        self, block: type[Block], indices: list[int], tokens: Tokens, inputs: BlockInputs
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

        def body(x: Array, of_block: tuple[Any, ...]) -> tuple[Array, None]:
            params, *own = of_block
            here = dataclasses.replace(tokens, x=x)
            after: Any = network.apply({"params": params}, here, *own)
            return after.x, None

        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)
        x, _ = jax.lax.scan(body, tokens.x, (stacked, *_at(slice(first, last + 1), inputs)))
        return dataclasses.replace(tokens, x=x)

    def _relative_bias(self, index: Int[np.ndarray, "L keys"]) -> Float[Array, "Z H L keys"]:
        c = self.config
        shape = (table_rows(c.relative_grid, c.relative_text), c.depth, c.heads)
        table = self.param("relative_positions", declare(zeros, None, None, "heads"), shape)
        return table[index].transpose(2, 3, 0, 1)


def with_even_length(tokens: Tokens) -> Tokens:
    """Returns tokens of an even number, with a token of zeros at the end of an odd one.

    It belongs to the last modality. No query attends to it, so nothing depends on it.
    """
    batch, length, _ = tokens.x.shape
    if length % 2 == 0:
        return tokens
    assert tokens.mask is None, "its queries and keys would need a row and a column"
    valid = jnp.ones((batch, length), bool) if tokens.valid is None else tokens.valid
    modality, count = tokens.layout[-1]
    return Tokens(
        jnp.pad(tokens.x, ((0, 0), (0, 1), (0, 0))),
        jnp.pad(valid, ((0, 0), (0, 1))),
        (*tokens.layout[:-1], (modality, count + 1)),
    )


def _at(where: int | slice, inputs: BlockInputs) -> tuple[Any, Any, Any]:
    """Returns the inputs of one block, or of several; an input that is None stays so."""
    return jax.tree.map(lambda each: each[where], inputs)
