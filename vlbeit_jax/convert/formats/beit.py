"""BEiT and BEiT v2 checkpoints, pretrained or fine-tuned: a warm start of everything that images go through.

They differ in the pixels that they were trained on: BEiT's are in [-1, 1] as ours, BEiT v2's are normalised by ImageNet's mean and
deviation, which is folded into the patch embedding.
"""

import re
from collections.abc import Mapping

import numpy as np

from vlbeit_jax.config import ModelConfig
from vlbeit_jax.convert.layouts import TOKEN, patches, zero
from vlbeit_jax.convert.rules import Changed, Shape, Table, TensorFile, Tensors, rule
from vlbeit_jax.convert.tables import (
    beit_attention,
    beit_expert,
    linear,
    norm,
    relative_biases,
    sees_images,
)
from vlbeit_jax.convert.unsaid import Unsaid, required, root, whole_heads
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.teacher import PIXELS
from vlbeit_jax.types import Positions

IMAGENET = PIXELS[
    "dino"
]  # Mean and deviation of ImageNet's pixels in [0, 1], which DINO takes too.
KERNEL, BIAS = "patch_embed.proj.weight", "patch_embed.proj.bias"
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
        rule("vision_embed/patch/kernel", KERNEL, patches(config.patch_size)),
        rule("vision_embed/patch/bias", BIAS),
        rule("vision_embed/type", "", zero(config.width)),
        relative_biases(
            config,
            (SHARED,)
            if SHARED in theirs
            else tuple(OWN.format(block=block) for block in range(config.depth)),
        ),
    ]
    left_out = {name: "BEiT knows no texts" for name in names if not sees_images(name)}
    if "mask_token" in theirs:
        rules += [
            rule("vision_embed/mask_token", "mask_token", TOKEN),
            *linear("vision_head", "lm_head"),
            *norm("encoder/norm", "norm"),
        ]
    else:
        gone = [
            "vision_embed/mask_token",
            "vision_head/kernel",
            "vision_head/bias",
            "encoder/norm/scale",
            "encoder/norm/bias",
        ]
        left_out |= dict.fromkeys(gone, "a fine-tuned checkpoint has none")
    for block in range(config.depth):
        ours, place = f"encoder/block_{block}", f"blocks.{block}"
        rules += beit_attention(ours, place, config.heads) + beit_expert(f"{ours}/vision", place)
        if config.layer_scale:
            rules += [
                rule(f"{ours}/attention_scale", f"{place}.gamma_1"),
                rule(f"{ours}/expert_scale", f"{place}.gamma_2"),
            ]
    ignored = {
        name: why
        for name in theirs
        for pattern, why in IGNORED.items()
        if re.fullmatch(pattern, name)
    }
    return Table(rules, left_out, {}, ignored)


def config_of(file: TensorFile, unsaid: Unsaid) -> ModelConfig:
    """The model that a file's shapes speak of; all of texts, of which they do not, is as in ``unsaid``.

    Raises:
      UsageError: the file has not BEiT's names, or a flag contradicts it.
    """
    theirs = file.shapes
    biases = next((name for name in (SHARED, OWN.format(block=0)) if name in theirs), SHARED)
    (width, _, patch_size, _), (ffn_width, _), (rows, heads), *_ = required(
        "BEiT checkpoint with relative positions",
        theirs,
        {
            KERNEL: 4,
            "blocks.0.mlp.fc1.weight": 2,
            biases: 2,
            "blocks.0.norm1.weight": 1,
            "cls_token": 3,
        },
    )
    side = root(rows - 3)
    if side is None or side % 2 == 0:
        raise UsageError(
            f"no BEiT checkpoint: {biases} has {rows} rows, which is 3 more than no odd number's square"
        )
    return unsaid.model(
        image_size=unsaid.agreed("image_size", (side + 1) // 2 * patch_size),
        patch_size=patch_size,
        width=width,
        depth=len([name for name in theirs if re.fullmatch(r"blocks\.\d+\.norm1\.weight", name)]),
        heads=whole_heads(width, heads),
        ffn_width=ffn_width,
        positions=Positions.RELATIVE,
        layer_scale=0.1 if "blocks.0.gamma_1" in theirs else 0.0,
        **(
            {"codes": unsaid.agreed("codes", theirs["lm_head.weight"][0])}
            if "lm_head.weight" in theirs
            else {}
        ),
    )


def read(theirs: Tensors, config: ModelConfig, names: Mapping[str, Shape]) -> tuple[Table, Tensors]:
    """The table for a file, and its tensors."""
    return table(config, theirs.shapes, names), theirs


def read_v2(
    theirs: Tensors, config: ModelConfig, names: Mapping[str, Shape]
) -> tuple[Table, Tensors]:
    """The table for a file of BEiT v2, and its tensors for pixels in [-1, 1]."""
    mean, deviation = (np.array(values, np.float32)[:, None, None] for values in IMAGENET)
    changes = {
        KERNEL: lambda tensors: tensors[KERNEL] * (0.5 / deviation),
        BIAS: lambda tensors: (
            tensors[BIAS] + (tensors[KERNEL] * ((0.5 - mean) / deviation)).sum((1, 2, 3))
        ),
    }
    return table(config, theirs.shapes, names), Changed(theirs, changes)
