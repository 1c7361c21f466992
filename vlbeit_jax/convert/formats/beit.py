"""BEiT and BEiT v2 checkpoints, pretrained or fine-tuned: a warm start of everything that images go through."""

import dataclasses
import re
from collections.abc import Mapping

import numpy as np

from vlbeit_jax.config import ModelConfig
from vlbeit_jax.convert.layouts import TOKEN, Layout, attention_out, fused_qkv, head_bias, patches
from vlbeit_jax.convert.rules import Rule, Shape, Table, Tensors, rule
from vlbeit_jax.convert.tables import FUSED, linear, norm
from vlbeit_jax.errors import UsageError
from vlbeit_jax.ops.position import table_rows
from vlbeit_jax.types import Modality, Positions

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
        _nothing("vision_embed/type", names),
        _biases(config, theirs),
    ]
    left_out = {name: "BEiT knows no texts" for name in names if not _sees_images(name)}
    if "mask_token" in theirs:
        rules += [rule("vision_embed/mask_token", "mask_token", TOKEN), *linear("vision_head", "lm_head"), *norm("encoder/norm", "norm")]
    else:
        gone = ["vision_embed/mask_token", "vision_head/kernel", "vision_head/bias", "encoder/norm/scale", "encoder/norm/bias"]
        left_out |= dict.fromkeys(gone, "a fine-tuned checkpoint has none")
    for block in range(config.depth):
        ours, place = f"encoder/block_{block}", f"blocks.{block}"
        rules += norm(f"{ours}/attention_norm", f"{place}.norm1") + [
            rule(f"{ours}/attention/qkv", f"{place}.attn.qkv.weight", fused_qkv(config.heads)),
            rule(f"{ours}/attention/query_bias", f"{place}.attn.q_bias", head_bias(config.heads)),
            rule(f"{ours}/attention/value_bias", f"{place}.attn.v_bias", head_bias(config.heads)),
            rule(f"{ours}/attention/out", f"{place}.attn.proj.weight", attention_out(config.heads)),
            rule(f"{ours}/attention/out_bias", f"{place}.attn.proj.bias"),
        ]
        if config.layer_scale:
            rules += [rule(f"{ours}/attention_scale", f"{place}.gamma_1"), rule(f"{ours}/expert_scale", f"{place}.gamma_2")]
        rules += norm(f"{ours}/vision/norm", f"{place}.norm2")
        rules += linear(f"{ours}/vision/up", f"{place}.mlp.fc1") + linear(f"{ours}/vision/down", f"{place}.mlp.fc2")
    ignored = {name: why for name in theirs for pattern, why in IGNORED.items() if re.fullmatch(pattern, name)}
    return Table(rules, left_out, {}, ignored)


def _sees_images(name: str) -> bool:
    parts = name.split("/")
    return parts[0] not in ("text_embed", "language_head") and not {str(Modality.LANGUAGE), FUSED} & set(parts)


def _nothing(ours: str, names: Mapping[str, Shape]) -> Rule:
    """A parameter of ours that adds nothing there, and so is zero here."""
    return Rule((ours,), (), Layout(lambda x: (), lambda: (np.zeros(names[ours], np.float32),)))


def _biases(config: ModelConfig, theirs: Mapping[str, Shape]) -> Rule:
    """Tables [rows of images, H], one for all blocks or one each; the rows of texts start at zero, as in BEiT's own start."""
    shared = SHARED in theirs
    keys = (SHARED,) if shared else tuple(OWN.format(block=block) for block in range(config.depth))
    rows = (2 * config.grid - 1) ** 2 + 3

    def there(x: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(x[:rows, block] for block in range(1 if shared else config.depth))

    def back(*tables: np.ndarray) -> tuple[np.ndarray]:
        whole = np.zeros((table_rows(config.grid, config.text_positions), config.depth, config.heads), np.float32)
        whole[:rows] = tables[0][:, None] if shared else np.stack(tables, axis=1)
        return (whole,)

    return Rule(("encoder/relative_positions",), keys, Layout(there, back))


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
