"""BEiT and BEiT v2 checkpoints, pretrained or fine-tuned: a warm start of everything that images go through."""

import dataclasses
import re
from collections.abc import Mapping

from vlbeit_jax.config import ModelConfig
from vlbeit_jax.convert.layouts import TOKEN, patches, zero
from vlbeit_jax.convert.rules import Shape, Table, Tensors, rule
from vlbeit_jax.convert.tables import beit_attention, beit_expert, linear, norm, relative_biases, sees_images
from vlbeit_jax.errors import UsageError
from vlbeit_jax.types import Positions

SHARED = "rel_pos_bias.relative_position_bias_table"
OWN = "blocks.{block}.attn.relative_position_bias_table"
IGNORED = {
    "rel_pos_bias.relative_position_index": "computed, not learned",
    r"blocks.\d+.attn.relative_position_index": "computed, not learned",
    r"cls_pt_layers\..*": "BEiT v2's second path through the CLS token, which pretraining here does not have",
    r"(head|fc_norm)\..*": "of a fine-tuned classifier",
}


def table(config: ModelConfig, theirs: Mapping[str, Shape], names: Mapping[str, Shape]) -> Table:
    """Images' part of a model; ``theirs`` tells pretrained files from fine-tuned ones, ``names`` are our parameters."""
    rules = [
        rule("vision_embed/cls", "cls_token", TOKEN),
        rule("vision_embed/patch/kernel", "patch_embed.proj.weight", patches(config.patch_size)),
        rule("vision_embed/patch/bias", "patch_embed.proj.bias"),
        rule("vision_embed/type", "", zero(config.width)),
        relative_biases(config, (SHARED,) if SHARED in theirs else tuple(OWN.format(block=block) for block in range(config.depth))),
    ]
    left_out = {name: "BEiT knows no texts" for name in names if not sees_images(name)}
    if "mask_token" in theirs:
        rules += [rule("vision_embed/mask_token", "mask_token", TOKEN), *linear("vision_head", "lm_head"), *norm("encoder/norm", "norm")]
    else:
        gone = ["vision_embed/mask_token", "vision_head/kernel", "vision_head/bias", "encoder/norm/scale", "encoder/norm/bias"]
        left_out |= dict.fromkeys(gone, "a fine-tuned checkpoint has none")
    for block in range(config.depth):
        ours, place = f"encoder/block_{block}", f"blocks.{block}"
        rules += beit_attention(ours, place, config.heads) + beit_expert(f"{ours}/vision", place)
        if config.layer_scale:
            rules += [rule(f"{ours}/attention_scale", f"{place}.gamma_1"), rule(f"{ours}/expert_scale", f"{place}.gamma_2")]
    ignored = {name: why for name in theirs for pattern, why in IGNORED.items() if re.fullmatch(pattern, name)}
    return Table(rules, left_out, {}, ignored)


def config_of(theirs: Mapping[str, Shape], unsaid: ModelConfig) -> ModelConfig:
    """The model that a file's shapes speak of; image size and all of texts, of which they do not, are as in ``unsaid``.

    Raises:
      UsageError: the file has not BEiT's names.
    """
    missing = [name for name in ("cls_token", "patch_embed.proj.weight", "blocks.0.mlp.fc1.weight") if name not in theirs]
    tables = [name for name in (SHARED, OWN.format(block=0)) if name in theirs]
    if missing or not tables:
        raise UsageError(f"no BEiT checkpoint with relative positions: {', '.join(missing or [SHARED])} missing")
    width, _, patch_size, _ = theirs["patch_embed.proj.weight"]
    return dataclasses.replace(
        unsaid,
        patch_size=patch_size,
        width=width,
        depth=len([name for name in theirs if re.fullmatch(r"blocks\.\d+\.norm1\.weight", name)]),
        heads=theirs[tables[0]][1],
        ffn_width=theirs["blocks.0.mlp.fc1.weight"][0],
        positions=Positions.RELATIVE,
        layer_scale=0.1 if "blocks.0.gamma_1" in theirs else 0.0,
        codes=theirs["lm_head.weight"][0] if "lm_head.weight" in theirs else unsaid.codes,
    )


def read(theirs: Tensors, config: ModelConfig, names: Mapping[str, Shape]) -> tuple[Table, Tensors]:
    """The table for a file, and its tensors."""
    return table(config, theirs.shapes, names), theirs
