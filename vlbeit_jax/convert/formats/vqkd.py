"""BEiT v2's visual tokenizers (VQ-KD), in both directions of one table."""

import re
from collections.abc import Mapping

from vlbeit_jax.config import VisualTokenizerConfig
from vlbeit_jax.convert.layouts import ROWS, TOKEN, patches
from vlbeit_jax.convert.rules import Shape, Table, rule
from vlbeit_jax.convert.source import CODEBOOK
from vlbeit_jax.convert.tables import beit_attention, beit_expert, linear, norm
from vlbeit_jax.convert.unsaid import Unsaid, required
from vlbeit_jax.errors import UsageError

IGNORED = {
    r"quantize\.(embedding\.)?(cluster_size|embed_avg|initted)": "statistics of training",
    r"(loss|teacher|scaling).*": "the teacher and its loss",
}
TEACHERS = {512: "clip", 768: "dino"}


def table(config: VisualTokenizerConfig, theirs: Mapping[str, Shape]) -> Table:
    """Encoder, codebook and decoder; ``theirs`` are the names of a file that is read."""
    rules = [rule(CODEBOOK, "quantize.embedding.weight")]
    for part, side, depth in (
        ("encoder", config.patch_size, config.encoder_depth),
        ("decoder", 1, config.decoder_depth),
    ):
        embed = f"{part}_embed"
        rules += [
            rule(f"{embed}/cls", f"{part}.cls_token", TOKEN),
            rule(f"{embed}/positions", f"{part}.pos_embed", ROWS),
            rule(f"{embed}/patch/kernel", f"{part}.patch_embed.proj.weight", patches(side)),
            rule(f"{embed}/patch/bias", f"{part}.patch_embed.proj.bias"),
            *norm(f"{part}/norm", f"{part}.fc_norm"),
        ]
        for block in range(depth):
            ours, place = f"{part}/block_{block}", f"{part}.blocks.{block}"
            rules += beit_attention(ours, place, config.heads) + beit_expert(
                f"{ours}/vision", place
            )
    for ours, place in (("to_code", "encode_task_layer"), ("to_target", "decode_task_layer")):
        rules += linear(f"{ours}/inner", f"{place}.0") + linear(f"{ours}/outer", f"{place}.2")
    return Table(
        rules,
        {},
        {},
        {
            name: why
            for name in theirs
            for pattern, why in IGNORED.items()
            if re.fullmatch(pattern, name)
        },
    )


def config_of(theirs: Mapping[str, Shape], unsaid: Unsaid) -> VisualTokenizerConfig:
    """The tokenizer that a file's shapes speak of.

    Raises:
      UsageError: the file has not VQ-KD's names, or its teacher is none that is known.
    """
    (
        (width, _, patch_size, _),
        (_, places, _),
        (ffn_width, _),
        (codes, code_width),
        (target, _),
        *_,
    ) = required(
        "VQ-KD checkpoint",
        theirs,
        {
            "encoder.patch_embed.proj.weight": 4,
            "encoder.pos_embed": 3,
            "encoder.blocks.0.mlp.fc1.weight": 2,
            "quantize.embedding.weight": 2,
            "decode_task_layer.2.weight": 2,
        },
    )
    if target not in TEACHERS:
        raise UsageError(
            f"decode_task_layer predicts {target} values; known are {TEACHERS} (CLIP and DINO ViT-B/16)"
        )
    depth = {
        part: len(
            [name for name in theirs if re.fullmatch(rf"{part}\.blocks\.\d+\.norm1\.weight", name)]
        )
        for part in ("encoder", "decoder")
    }
    return VisualTokenizerConfig(
        image_size=round((places - 1) ** 0.5) * patch_size,
        patch_size=patch_size,
        width=width,
        heads=unsaid.heads_of(width),
        ffn_width=ffn_width,
        encoder_depth=depth["encoder"],
        decoder_depth=depth["decoder"],
        codes=codes,
        code_width=code_width,
        teacher=TEACHERS[target],
    )
