"""Memory of a train step on one chip: exact for what is kept between steps, by a formula for what a step needs meanwhile."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vlbeit_jax.config import Config
from vlbeit_jax.data.masking import masked_slots
from vlbeit_jax.models.layers import matmul_dtype
from vlbeit_jax.ops.attention import can_fuse
from vlbeit_jax.training.state import TrainState
from vlbeit_jax.types import Positions, Stream

Tree = Any
BLOCK_PROGRAM = 10_500_000  # Bytes of code of a trained block: 9.8 MB at base size for v5e:16x16, 11.9 for v5p:4x4x4 (docs/plans).
# The compiler writes long programs more densely: base size is 0.3 to 0.5 GB, large size for v5e 0.2, where blocks as above would make 0.8
# (and do for v5p). Where it begins is not known; this lies between.
LONG_PROGRAM, DENSE_BLOCK_PROGRAM = 700_000_000, 2_500_000


class Memory(NamedTuple):
    """Bytes on one chip.

    Attributes:
      parameters, optimizer, other: of the state; other are codebook and counts.
      frozen: networks that only look on.
      batch: one step's examples.
      temporaries: activations, gradients, copies for matmuls, and what the compiler needs besides.
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
    """What lies on a chip before a step begins; the trees are shapes with shardings."""
    parts = (state.params, (state.opt_state, state.step), state.extra, frozen, batches)
    return Memory(*(tree_bytes(part) for part in parts), temporaries=0, program=0)


def tree_bytes(tree: Tree) -> int:
    """Bytes of a tree's shards on one device."""
    return sum(shard_size(leaf) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def shard_size(leaf: Any) -> int:
    """Elements of a leaf on one device."""
    return math.prod(leaf.sharding.shard_shape(leaf.shape))


def estimate(
    config: Config,
    state: TrainState,
    frozen: Tree,
    batches: Tree,
    rows: int,
    tensor: int,
    on_tpu: bool,
) -> Memory:
    """The same and a formula's temporaries and program.

    Weights are whole on every chip but for tensor parallelism and what is cut along the vocabulary, in the type of their products,
    and so are gradients, in float32; those of a microbatch, and on one chip those of a stream, stand beside the sum of the others.
    A loop over blocks stacks weights and gradients once more. What backward needs of forward is kept for the largest stream alone
    on one chip; on several, the compiler starts streams before others have ended, to hide collectives, and that of all streams is
    there at once.

    Args:
      config: the run.
      state: shapes with shardings, as the next two.
      frozen: networks that only look on.
      batches: of the step's streams.
      rows: devices that a batch is cut over.
      tensor: devices that share heads, FFN and vocabulary.
      on_tpu: where the program lies in the chip's memory.
    """
    found = kept(state, frozen, batches)
    trained = config.model if config.task == "pretrain" else config.visual_tokenizer
    itemsize = jnp.dtype(matmul_dtype(trained.matmul)).itemsize
    leaves = jax.tree_util.tree_leaves_with_path(state.params)
    stays = lambda path: not {"words", "language_head"}.isdisjoint(entry.key for entry in path)  # noqa: E731
    count = sum(shard_size(leaf) if stays(path) else leaf.size // tensor for path, leaf in leaves)
    weights = 0 if itemsize == 4 and rows == 1 else count * itemsize
    weights += 2 * count * itemsize if trained.scan else 0
    streams = [Stream(name) for name in batches]
    gradients = (
        4 * count * (2 if config.run.accumulate > 1 or (rows == 1 and len(streams) > 1) else 1)
    )
    activations = [
        activation_bytes(config, stream, rows, tensor, itemsize, on_tpu) for stream in streams
    ]
    together = sum(activations) if rows > 1 else max(activations)
    return found._replace(
        temporaries=gradients + weights + together,
        program=_program_bytes(config, streams) if on_tpu else 0,
    )


def _program_bytes(config: Config, streams: list[Stream]) -> int:
    """Each block is code of its own, or each loop over blocks; forward alone is a third of it."""
    blocks = _blocks(config, streams)
    return int(
        blocks * (BLOCK_PROGRAM if blocks * BLOCK_PROGRAM < LONG_PROGRAM else DENSE_BLOCK_PROGRAM)
    )


def _blocks(config: Config, streams: list[Stream]) -> float:
    """Trained blocks that the program holds, counting others as parts."""
    model, visual = config.model, config.visual_tokenizer
    encoder, decoder = (
        1 if visual.scan else depth for depth in (visual.encoder_depth, visual.decoder_depth)
    )
    if config.task == "vqkd":
        return encoder + decoder
    frozen = (
        0 if config.data.visual_tokens else sum(stream.has_image for stream in streams) * encoder
    )
    loops = [
        2 if stream is Stream.PAIR and 0 < model.fused_layers < model.depth else 1
        for stream in streams
    ]
    return (sum(loops) if model.scan else model.depth * len(streams)) + frozen / 3


def activation_bytes(
    config: Config, stream: Stream, rows: int, tensor: int, itemsize: int, on_tpu: bool
) -> int:
    """What a stream's backward pass needs of its forward pass, for one microbatch on one chip."""
    data = getattr(config.data, stream)
    examples = -(-data.batch_size // (rows * config.run.accumulate))
    if config.task == "vqkd":
        visual = config.visual_tokenizer
        length, depth = visual.grid**2 + 1, visual.encoder_depth + visual.decoder_depth
        fused = (
            on_tpu
            and visual.attention != "einsum"
            and can_fuse(length, visual.width, visual.heads, tensor)
        )
        return (
            examples
            * depth
            * _block_bytes(
                length,
                visual.width,
                visual.ffn_width,
                0 if fused else visual.heads,
                tensor,
                itemsize,
            )
        )
    model = config.model
    length = (model.patches + 1) * stream.has_image + data.text_length * stream.has_text
    fused = on_tpu and model.attention != "einsum" and model.positions is Positions.ABSOLUTE
    fused = fused and can_fuse(length, model.width, model.heads, tensor)
    whole = _block_bytes(
        length, model.width, model.ffn_width, 0 if fused else model.heads, tensor, itemsize
    )
    kept = {
        "none": whole,
        "dots": length
        * (4 * model.width + itemsize * (5 * model.width + model.ffn_width) // tensor),
        "full": length * 4 * model.width,
    }[model.remat]
    blocks = model.depth * kept + (
        whole if model.remat != "none" else 0
    )  # One block at a time is computed again.
    logits = data.num_masked_patches * model.codes * stream.has_image
    logits += masked_slots(data.text_length, data.masked_text) * model.vocabulary * stream.has_text
    return examples * (blocks + 2 * 4 * logits // tensor)  # Logits and their gradient, float32.


def _block_bytes(
    length: int, width: int, ffn_width: int, heads: int, tensor: int, itemsize: int
) -> int:
    """One example in one block.

    Residual stream before attention and before the expert in float32; both norms' outputs; queries, keys, values and what
    they mix; the expert's hidden layer before and after GELU; attention weights of ``heads`` in float32 and in the matmuls' type
    (none where one kernel computes them again).
    """
    per_token = (
        2 * 4 * width
        + 2 * itemsize * width
        + 4 * itemsize * width // tensor
        + 2 * itemsize * ffn_width // tensor
    )
    return length * per_token + heads * length * length * (4 + itemsize) // tensor
