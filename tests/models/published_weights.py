"""Parameters under the names and in the layout of published models, for ``convert.reference``."""

import jax
import numpy as np

from vlbeit_jax.convert.reference import IMAGE, TEXT
from vlbeit_jax.types import Positions


def vlmo_weights(params, config):
    """Parameters of ``VLBEiT`` as VLMo names and lays them out, float64."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    types = {IMAGE: p["vision_embed"]["type"], TEXT: p["text_embed"]["type"]}
    w = {
        "token_type_embeddings.weight": np.stack([types[row] for row in range(2)]),
        "text_embeddings.word_embeddings.weight": p["text_embed"]["words"],
        "mask_token": p["vision_embed"]["mask_token"],
    }
    w |= _vision_embed(p["vision_embed"], "", config.patch_size)
    if config.positions is Positions.ABSOLUTE:
        w["text_embeddings.position_embeddings.weight"] = p["text_embed"]["positions"]
    else:
        w |= _norm(p["text_embed"]["norm"], "text_embeddings.LayerNorm")
        w["relative_position_bias_table"] = p["encoder"]["relative_positions"].reshape(
            -1, config.depth * config.heads
        )
    w |= (
        _linear(p["vision_head"], "mim_head")
        | _linear(p["language_head"], "mlm_head")
        | _norm(p["encoder"]["norm"], "norm")
    )
    for layer in range(config.depth):
        block = p["encoder"][f"block_{layer}"]
        w |= _block(
            block,
            f"blocks.{layer}",
            {"vision": "_imag", "language": "_text", "vision_language": "_vl"},
        )
        w |= {
            f"blocks.{layer}.gamma_1": block["attention_scale"],
            f"blocks.{layer}.gamma_2": block["expert_scale"],
        }
    return w


def vqkd_weights(params, codebook, config):
    """Parameters of ``VisualTokenizer`` as BEiT v2 names and lays them out, float64."""
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    w = {"quantize.embedding.weight": np.asarray(codebook, np.float64)}
    for part, side, depth in (
        ("encoder", config.patch_size, config.encoder_depth),
        ("decoder", 1, config.decoder_depth),
    ):
        w |= _vision_embed(p[f"{part}_embed"], f"{part}.", side) | _norm(
            p[part]["norm"], f"{part}.fc_norm"
        )
        for layer in range(depth):
            w |= _block(p[part][f"block_{layer}"], f"{part}.blocks.{layer}", {"vision": ""})
    for ours, theirs in (("to_code", "encode_task_layer"), ("to_target", "decode_task_layer")):
        w |= _linear(p[ours]["inner"], f"{theirs}.0") | _linear(p[ours]["outer"], f"{theirs}.2")
    return w


def _linear(p, name):
    return {f"{name}.weight": p["kernel"].T, f"{name}.bias": p["bias"]}


def _norm(p, name):
    return {f"{name}.weight": p["scale"], f"{name}.bias": p["bias"]}


def _vision_embed(p, prefix, side):
    kernel = p["patch"]["kernel"]  # [(row, column, channel), D]
    w = {
        f"{prefix}patch_embed.proj.weight": kernel.reshape(
            side, side, -1, kernel.shape[-1]
        ).transpose(3, 2, 0, 1),
        f"{prefix}patch_embed.proj.bias": p["patch"]["bias"],
        f"{prefix}cls_token": p["cls"],
    }
    return w | ({f"{prefix}pos_embed": p["positions"]} if "positions" in p else {})


def _block(p, name, experts):
    attention = p["attention"]
    width, per_head = len(attention["qkv"]), attention["query_bias"].shape[1]
    group = (
        128 if width % 128 == 0 and 128 % per_head == 0 else per_head
    )  # Heads that fill 128 lanes stand together.
    grouped = attention["qkv"].reshape(width, -1, 3, group)  # [D, group, (query, key, value), lane]
    w = _norm(p["attention_norm"], f"{name}.norm1") | {
        f"{name}.attn.qkv.weight": grouped.transpose(2, 1, 3, 0).reshape(3 * width, width),
        f"{name}.attn.q_bias": attention["query_bias"].ravel(),
        f"{name}.attn.v_bias": attention["value_bias"].ravel(),
        f"{name}.attn.proj.weight": attention["out"].reshape(width, width).T,
        f"{name}.attn.proj.bias": attention["out_bias"],
    }
    for ours, suffix in experts.items():
        if ours in p:
            w |= _norm(p[ours]["norm"], f"{name}.norm2{suffix}") | _linear(
                p[ours]["up"], f"{name}.mlp{suffix}.fc1"
            )
            w |= _linear(p[ours]["down"], f"{name}.mlp{suffix}.fc2")
    return w
