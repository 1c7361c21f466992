"""What the CLS token of an image attends to: weights that a forward pass does not return.

The kernels for TPUs and GPUs never write them to memory. So they are computed here from the states
below the last block, as ``ops.attention`` does by einsum.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.models.backbone import Backbone, Inputs
from vlbeit_jax.models.layers import LayerNorm, Linear, concatenate_axis1, matmul, matmul_dtype
from vlbeit_jax.models.tokens import Tokens
from vlbeit_jax.ops.attention import ungroup
from vlbeit_jax.ops.einsum import einsum_to_float32
from vlbeit_jax.ops.hidden import HIDDEN
from vlbeit_jax.ops.position import relative_index
from vlbeit_jax.shapes import Array, Float, Tree
from vlbeit_jax.types import Layout, Modality, Positions

CLS = 0  # The image comes first, and its CLS token before its patches.


def sees_images_alone(config: ModelConfig, params: Tree) -> bool:
    """Returns whether every block has the expert that images without texts pass through."""
    blocks = (params["encoder"][f"block_{index}"] for index in range(config.depth))
    return all(str(Modality.VISION) in block for block in blocks)


def cls_attention(config: ModelConfig, params: Tree, inputs: Inputs) -> Float[Array, "B H L"]:
    """Returns how the last block's CLS token of each image divides its attention over all tokens.

    Args:
      config: of two blocks or more.
      params: of a network with one backbone.
      inputs: images, or images with texts.

    Returns:
      For each head, weights that sum to 1: of CLS, of the patches row by row, then of the text.
    """
    assert config.depth >= 2, "the states below the last block are those of another block"
    return _cls_attention(dataclasses.replace(config, drop_path=0.0), params, inputs)


@functools.partial(jax.jit, static_argnums=0)
def _cls_attention(config: ModelConfig, params: Tree, inputs: Inputs) -> Float[Array, "B H L"]:
    last = config.depth - 1
    final_norm = any("norm" in name for name in params["encoder"])
    backbone = Backbone(config, final_norm)
    encoded: Any = backbone.apply({"params": params}, inputs, keep=(last - 1,))
    tokens = dataclasses.replace(encoded.tokens, x=encoded.kept[0])
    block = params["encoder"][f"block_{last}"]
    parts = _decoupled if config.decoupled else _shared
    query, key = (x.reshape(*x.shape[:2], config.heads, -1) for x in parts(config, block, tokens))
    query = query[:, CLS] * query.shape[-1] ** -0.5
    logits = einsum_to_float32("bhk,bshk->bhs", query, key)
    if config.positions is Positions.RELATIVE:
        table = params["encoder"]["relative_positions"][:, last]
        logits = logits + _bias(config, table, tokens.layout).astype(jnp.float32)
    if tokens.valid is not None:
        logits = jnp.where(tokens.valid[:, None], logits, HIDDEN)
    return jax.nn.softmax(logits, axis=-1)


def _shared(config: ModelConfig, block: Tree, tokens: Tokens) -> list[Float[Array, "B L D"]]:
    """Returns queries and keys of ``layers.Attention``, whose keys have no bias."""
    dtype, own = matmul_dtype(config.matmul), block["attention"]
    norm = LayerNorm(dtype, config.norm_eps)
    x: Any = norm.apply({"params": block["attention_norm"]}, tokens.x)
    query, key, _ = (matmul(x, part) for part in ungroup(own["qkv"].astype(dtype), config.heads))
    return [query + own["query_bias"].reshape(-1).astype(dtype), key]


def _decoupled(config: ModelConfig, block: Tree, tokens: Tokens) -> list[Float[Array, "B L D"]]:
    """Returns queries and keys of ``decoupled.DecoupledAttention``."""
    dtype, own = matmul_dtype(config.matmul), block["attention"]
    norm = LayerNorm(dtype, config.norm_eps)
    linear = Linear(config.width, ("embed", "heads"), dtype)
    projected: list[list[Array]] = [[], []]
    for modality, _ in tokens.layout:
        x: Any = norm.apply({"params": own[f"{modality}_norm"]}, tokens.segment(modality))
        for arrays, part in zip(projected, ("query", "key"), strict=True):
            array: Any = linear.apply({"params": own[f"{modality}_{part}"]}, x)
            arrays.append(array)
    return [concatenate_axis1(arrays) for arrays in projected]


def _bias(
    config: ModelConfig, table: Float[Array, "rows H"], layout: Layout
) -> Float[Array, "H L"]:
    return table[relative_index(layout, config.grid, config.text_positions)[CLS]].T
