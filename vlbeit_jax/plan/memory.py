"""Memory of a train step on one chip.

What is kept between steps is exact: it follows from shapes and shardings. What a step needs
meanwhile is a formula over the networks that the step calls, which are found by tracing it.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from vlbeit_jax.objectives.base import Objective
from vlbeit_jax.ops.attention import why_not_fused
from vlbeit_jax.plan.networks import Networks, Stack, networks_of
from vlbeit_jax.shapes import Tree
from vlbeit_jax.training.param_names import leaf_name
from vlbeit_jax.training.state import TrainState
from vlbeit_jax.training.trainable import EVERYTHING, Trained

# Bytes of code of a trained block: 9.8 MB at base size for v5e:16x16, 11.9 for v5p:4x4x4
# (docs/plans). The forward pass alone is about a third of it.
BLOCK_PROGRAM, FORWARD_SHARE = 10_500_000, 1 / 3
# The compiler writes long programs more densely: base size is 0.3 to 0.5 GB, and large size for v5e
# 0.2, where the figure above would give 0.8 (and does for v5p). The limit lies somewhere between.
LONG_PROGRAM, DENSE_BLOCK_PROGRAM = 700_000_000, 2_500_000


class Memory(NamedTuple):
    """Bytes on one chip.

    Attributes:
      parameters: of the trained networks.
      optimizer: moments, averaged parameters and counts of steps.
      other: model state that no gradient moves, such as a codebook and counts.
      frozen: parameters of frozen networks.
      batch: one step's rows.
      temporaries: activations, gradients, copies for products, and what else the compiler needs.
      program: the code itself.
    """

    parameters: int
    optimizer: int
    other: int
    frozen: int
    batch: int
    temporaries: int
    program: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self)


def kept(state: TrainState, frozen: Tree, batches: Tree) -> Memory:
    """What is on a chip before a step begins; the trees are shapes with shardings."""
    moments = (state.opt_state, state.step, state.refused, state.ema)
    parts = (state.params, moments, state.model_state, frozen, batches)
    return Memory(*(tree_bytes(part) for part in parts), temporaries=0, program=0)


def tree_bytes(tree: Tree) -> int:
    """Returns the bytes of a tree's shards on one device."""
    return sum(shard_size(leaf) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def shard_size(leaf: Any) -> int:
    """Elements of a leaf on one device."""
    return math.prod(leaf.sharding.shard_shape(leaf.shape))


def estimate(
    objectives: Mapping[str, Objective],
    state: TrainState,
    info: Tree,
    frozen: Tree,
    batches: Mapping[Any, Mapping[str, Any]],
    accumulate: int,
    rows: int,
    tensor: int,
    on_tpu: bool,
    trained: Trained = EVERYTHING,
) -> Memory:
    """Returns memory with a formula's temporaries and program.

    Args:
      objectives: losses by stream; those of ``batches`` are in the step.
      state: shapes with shardings, as ``frozen`` and ``batches``.
      info: a ``ParamInfo`` per parameter.
      frozen: parameters of frozen networks.
      batches: rows of the step's streams, over all devices.
      accumulate: microbatches of a step.
      rows: devices that share the rows.
      tensor: devices that share heads, FFN and vocabulary.
      on_tpu: whether a kernel computes attention, and the program lies in the chip's memory.
      trained: the parameters that get gradients.
    """
    networks = [
        networks_of(objectives[stream], state.params, frozen, batch, trained)
        for stream, batch in batches.items()
    ]
    stacks = [stack for each in networks for stack in each.stacks]
    activations = [activation_bytes(each, rows * accumulate, tensor, on_tpu) for each in networks]
    # On one chip, the backward pass of a stream ends before the next stream begins. On several, the
    # compiler starts streams early, to hide collectives, and all activations are there at once.
    together = sum(activations) if rows > 1 else max(activations)
    copies = _parameter_copies(
        state.params,
        info,
        rows,
        tensor,
        twice=accumulate > 1 or (rows == 1 and len(networks) > 1),
        stacked=any(stack.config.scan for stack in stacks if stack.trained),
        trained=trained,
    )
    return kept(state, frozen, batches)._replace(
        temporaries=copies + together, program=_program_bytes(stacks) if on_tpu else 0
    )


def _parameter_copies(
    params: Tree,
    info: Tree,
    rows: int,
    tensor: int,
    twice: bool,
    stacked: bool,
    trained: Trained,
) -> int:
    """Gradients in float32, and parameters in the type of their products.

    Both are whole on every chip but for tensor parallelism and what is parted by the vocabulary.

    Args:
      params: shapes with shardings.
      info: a ``ParamInfo`` per parameter.
      rows: devices that share the rows.
      tensor: devices that share heads, FFN and vocabulary.
      twice: gradients of a microbatch or a stream stand beside the sum of the others.
      stacked: a loop over blocks stacks parameters and gradients once more.
      trained: the parameters that get gradients.
    """
    total = 0
    for (path, leaf), facts in zip(
        jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(info), strict=True
    ):
        moves = leaf_name(path) in trained
        count = shard_size(leaf) if facts.vocab_parallel else leaf.size // tensor
        itemsize = facts.dtype.itemsize
        # In float32, on its only chip or in its own part, a parameter is used where it lies.
        copied = itemsize < 4 or (rows > 1 and not facts.vocab_parallel)
        total += count * (
            4 * moves * (2 if twice else 1) + itemsize * (copied + (1 + moves) * stacked)
        )
    return total


def _program_bytes(stacks: list[Stack]) -> int:
    blocks = sum(
        stack.blocks_of_code
        * (FORWARD_SHARE + (1 - FORWARD_SHARE) * stack.trained_blocks / stack.config.depth)
        for stack in stacks
    )
    loose = blocks * BLOCK_PROGRAM
    return int(loose if loose < LONG_PROGRAM else blocks * DENSE_BLOCK_PROGRAM)


def activation_bytes(networks: Networks, parts: int, tensor: int, on_tpu: bool) -> int:
    """What a stream's backward pass needs of its forward pass, for one microbatch on one chip.

    Args:
      networks: of the stream.
      parts: devices that share the rows, times microbatches.
      tensor: devices that share heads, FFN and vocabulary.
      on_tpu: whether a kernel computes attention.
    """
    # An example may be several rows of a Transformer, as two images with a statement are.
    stacks = sum(
        -(-stack.rows // parts) * _stack_bytes(stack, tensor, on_tpu)
        for stack in networks.stacks
        if stack.trained
    )
    # Logits and their gradient, in float32.
    return stacks + -(-networks.rows // parts) * 2 * 4 * networks.logits // tensor


def _stack_bytes(stack: Stack, tensor: int, on_tpu: bool) -> int:
    """Returns the bytes of one row's activations in a Transformer."""
    c, length = stack.config, stack.length
    whole = _block_bytes(stack, tensor, on_tpu)
    if c.remat == "none":
        return stack.trained_blocks * whole
    stored = length * 4 * c.width
    if c.remat == "dots":
        stored += length * c.dtype.itemsize * (5 * c.width + c.ffn_width) // tensor
    # One block at a time is computed again.
    return stack.trained_blocks * stored + whole


def _block_bytes(stack: Stack, tensor: int, on_tpu: bool) -> int:
    """Returns the bytes of one row's activations in one block."""
    c, length = stack.config, stack.length
    width, itemsize = c.width, c.dtype.itemsize
    # The residual stream before attention and before the expert, in float32.
    per_token = 2 * 4 * width
    # The outputs of both norms.
    per_token += 2 * itemsize * width
    # Queries, keys, values and what attention makes of them.
    per_token += 4 * itemsize * width // tensor
    # The expert's hidden layer before and after GELU.
    per_token += 2 * itemsize * c.ffn_width // tensor
    # Attention weights, in float32 and in the products' type; a kernel computes them again.
    fused = (
        on_tpu
        and c.attention != "einsum"
        and not why_not_fused(
            length,
            width,
            c.heads,
            tensor,
            c.dtype,
            biased=bool(c.relative_grid),
            masked=stack.masked,
        )
    )
    heads = 0 if fused else c.heads
    return length * per_token + heads * length * length * (4 + itemsize) // tensor
