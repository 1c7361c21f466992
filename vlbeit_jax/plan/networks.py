"""The networks that a stream's loss calls, found by tracing it."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlbeit_jax.models.layers import Linear
from vlbeit_jax.models.multiway import EncoderConfig, Multiway
from vlbeit_jax.models.vocabulary import WordHead, padded_vocabulary
from vlbeit_jax.objectives.base import ROW, Context, Objective, Variables, on_one_device
from vlbeit_jax.shapes import Tree
from vlbeit_jax.training.trainable import EVERYTHING, Trained
from vlbeit_jax.types import Layout


class Stack(NamedTuple):
    """One call of a Transformer in a step.

    Attributes:
      config: its sizes and settings.
      layout: tokens of a row by modality.
      rows: over all devices and microbatches.
      trained_blocks: top blocks that the backward pass goes through; 0: none follows.
      masked: whether a mask says which query may see which key.
    """

    config: EncoderConfig
    layout: Layout
    rows: int
    trained_blocks: int
    masked: bool = False

    @property
    def trained(self) -> bool:
        """Whether a backward pass follows."""
        return self.trained_blocks > 0

    @property
    def length(self) -> int:
        """Tokens of a row."""
        return sum(count for _, count in self.layout)

    @property
    def blocks_of_code(self) -> int:
        """Blocks, or loops over blocks with the same experts, that the compiler makes code for."""
        c = self.config
        if not c.scan:
            return c.depth
        routes = (c.experts(index, self.layout) for index in range(c.depth))
        return len(list(itertools.groupby(routes)))


class Networks(NamedTuple):
    """What a stream's loss calls.

    Attributes:
      stacks: Transformers, in the order of their calls.
      logits: elements of a row's trained outputs in float32, such as logits of masked positions.
      rows: over all devices and microbatches.
    """

    stacks: tuple[Stack, ...]
    logits: int
    rows: int


def networks_of(
    objective: Objective,
    params: Tree,
    frozen: Tree,
    batch: Mapping[str, Any],
    trained: Trained = EVERYTHING,
) -> Networks:
    """Finds the networks that a loss calls, by tracing it; the trees are shapes."""
    stacks, logits, of_batch = [], [], batch["weight"].shape[0]

    def forward(params: Tree, model_state: Tree, frozen: Tree, batch: Tree, key: jax.Array) -> Tree:
        # Within one trace, a parameter is the same object wherever a network reads it.
        ours = {id(leaf) for leaf in jax.tree.leaves(params)}

        def note(call: Callable[..., Any], inputs: Any, options: Any, context: Any) -> Any:
            outputs, module = call(*inputs, **options), context.module
            if context.method_name == "__call__" and isinstance(
                module, Multiway | Linear | WordHead
            ):
                own = jax.tree.leaves(module.variables.get("params", {}))
                is_trained = any(id(leaf) in ours for leaf in own)
                if isinstance(module, Multiway):
                    tokens = inputs[0]
                    reached = trained.reaches(module.config.depth) if is_trained else 0
                    rows, masked = tokens.x.shape[0], tokens.mask is not None
                    stacks.append(Stack(module.config, tokens.layout, rows, reached, masked))
                elif isinstance(module, WordHead) and is_trained:
                    # Its logits never leave it, and a device has its part of them.
                    states = inputs[0]
                    positions = states.size // states.shape[-1]
                    logits.append(positions * padded_vocabulary(module.vocabulary))
                elif isinstance(module, Linear) and module.exact and is_trained:
                    logits.append(outputs.size)
            return outputs

        with nn.intercept_methods(note):
            variables = Variables(params, model_state, frozen)
            return on_one_device(objective, variables, batch, Context(key))

    key = jax.eval_shape(jax.random.key, 0)
    numbered = {**batch, ROW: jax.ShapeDtypeStruct((of_batch,), jnp.int32)}
    unplaced = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
        (params, jax.eval_shape(objective.init_model_state), frozen, numbered),
    )
    jax.eval_shape(forward, *unplaced, key)
    return Networks(tuple(stacks), sum(logits) // of_batch, of_batch)
