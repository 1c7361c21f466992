"""CLIP's and DINO's ViT-B/16 image encoders, as teachers of VQ-KD."""

import re
from collections.abc import Mapping

import numpy as np

from vlbeit_jax.convert.layouts import ROWS, TOKEN, Layout, attention_out, fused_qkv, patches, zero
from vlbeit_jax.convert.rules import Rule, Shape, Table, rule
from vlbeit_jax.convert.tables import linear, norm
from vlbeit_jax.convert.unsaid import Unsaid, required
from vlbeit_jax.models.teacher import ViTConfig

CLIP_IGNORED = {
    r"transformer\..*|token_embedding\..*|ln_final\..*|positional_embedding|text_projection|logit_scale": "CLIP's text side",
    r"input_resolution|context_length|vocab_size": "sizes",
}
DINO_IGNORED = {r"head\..*": "DINO's projection, which nothing here looks at"}


def clip_table(config: ViTConfig, theirs: Mapping[str, Shape]) -> Table:
    """OpenAI's names, with or without the text side."""
    rules = [
        rule("embed/cls", "visual.class_embedding"),
        rule("embed/positions", "visual.positional_embedding"),
        rule("embed/patch/kernel", "visual.conv1.weight", patches(config.patch_size)),
        rule("embed/patch/bias", "", zero(config.width)),
        *norm("embed_norm", "visual.ln_pre"),
        *norm("encoder/norm", "visual.ln_post"),
        rule("project/kernel", "visual.proj"),
    ]
    for block in range(config.depth):
        ours, place = f"encoder/block_{block}", f"visual.transformer.resblocks.{block}"
        rules += _block(
            config,
            ours,
            f"{place}.attn.in_proj_weight",
            f"{place}.attn.in_proj_bias",
            f"{place}.attn.out_proj",
        )
        rules += norm(f"{ours}/attention_norm", f"{place}.ln_1") + norm(
            f"{ours}/vision/norm", f"{place}.ln_2"
        )
        rules += linear(f"{ours}/vision/up", f"{place}.mlp.c_fc") + linear(
            f"{ours}/vision/down", f"{place}.mlp.c_proj"
        )
    return Table(rules, {}, {}, _ignored(theirs, CLIP_IGNORED))


def dino_table(config: ViTConfig, theirs: Mapping[str, Shape]) -> Table:
    """The names of DINO's own vision transformer."""
    rules = [
        rule("embed/cls", "cls_token", TOKEN),
        rule("embed/positions", "pos_embed", ROWS),
        rule("embed/patch/kernel", "patch_embed.proj.weight", patches(config.patch_size)),
        rule("embed/patch/bias", "patch_embed.proj.bias"),
        *norm("encoder/norm", "norm"),
    ]
    for block in range(config.depth):
        ours, place = f"encoder/block_{block}", f"blocks.{block}"
        rules += _block(
            config, ours, f"{place}.attn.qkv.weight", f"{place}.attn.qkv.bias", f"{place}.attn.proj"
        )
        rules += norm(f"{ours}/attention_norm", f"{place}.norm1") + norm(
            f"{ours}/vision/norm", f"{place}.norm2"
        )
        rules += linear(f"{ours}/vision/up", f"{place}.mlp.fc1") + linear(
            f"{ours}/vision/down", f"{place}.mlp.fc2"
        )
    return Table(rules, {}, {}, _ignored(theirs, DINO_IGNORED))


def _block(config: ViTConfig, ours: str, weight: str, bias: str, out: str) -> list[Rule]:
    heads = config.heads

    def split(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        query, _, value = x.reshape(
            3, heads, -1
        )  # The keys' part moves all logits of a query alike.
        return query, value

    def fused(query: np.ndarray, value: np.ndarray) -> tuple[np.ndarray]:
        return (np.stack([query, np.zeros_like(query), value]).reshape(-1),)

    return [
        rule(f"{ours}/attention/qkv", weight, fused_qkv(heads)),
        Rule(
            (f"{ours}/attention/query_bias", f"{ours}/attention/value_bias"),
            (bias,),
            Layout(fused, split),
        ),
        rule(f"{ours}/attention/out", f"{out}.weight", attention_out(heads)),
        rule(f"{ours}/attention/out_bias", f"{out}.bias"),
    ]


def _ignored(theirs: Mapping[str, Shape], patterns: Mapping[str, str]) -> dict[str, str]:
    return {
        name: why
        for name in theirs
        for pattern, why in patterns.items()
        if re.fullmatch(pattern, name)
    }


def clip_config(theirs: Mapping[str, Shape], unsaid: Unsaid) -> ViTConfig:
    """From the shapes of a file with OpenAI's names."""
    axes = {
        "visual.conv1.weight": 4,
        "visual.positional_embedding": 2,
        "visual.transformer.resblocks.0.mlp.c_fc.weight": 2,
        "visual.proj": 2,
    }
    return _config(
        "clip", theirs, axes, r"visual\.transformer\.resblocks\.\d+\.ln_1\.weight", unsaid
    )


def dino_config(theirs: Mapping[str, Shape], unsaid: Unsaid) -> ViTConfig:
    """From the shapes of a file with DINO's names."""
    axes = {
        "patch_embed.proj.weight": 4,
        "pos_embed": 3,
        "blocks.0.mlp.fc1.weight": 2,
        "norm.weight": 1,
    }
    return _config("dino", theirs, axes, r"blocks\.\d+\.norm1\.weight", unsaid)


def _config(
    kind: str, theirs: Mapping[str, Shape], axes: Mapping[str, int], block: str, unsaid: Unsaid
) -> ViTConfig:
    patch, positions, up, last = required(f"{kind} checkpoint", theirs, axes)
    width, _, side, _ = patch
    grid = round((positions[-2] - 1) ** 0.5)
    depth = len([name for name in theirs if re.fullmatch(block, name)])
    return ViTConfig(kind, grid * side, side, width, depth, unsaid.heads_of(width), up[0], last[-1])
