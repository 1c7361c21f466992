"""CLIP's ViT-B/16 image encoder, OpenAI's or open_clip's, as a teacher of VQ-KD.

Both have the same names and shapes. OpenAI's networks were trained with QuickGELU; open_clip's use
the exact GELU unless their configuration says otherwise (``clip_settings``).
"""

import pathlib
from collections.abc import Iterable, Mapping

from vlbeit_jax.convert.formats.base import TEACHER, Import
from vlbeit_jax.convert.formats.clip_settings import find_settings
from vlbeit_jax.convert.formats.vit import import_teacher, vit_config
from vlbeit_jax.convert.import_options import ImportOptions, match_reasons
from vlbeit_jax.convert.permutations import patches, zero
from vlbeit_jax.convert.read_tensors import TensorFile
from vlbeit_jax.convert.rules import Report, Shape, Table, rule
from vlbeit_jax.convert.tables import AttentionNames, attention, expert, norm
from vlbeit_jax.models.teacher import ViTConfig

TEXT_SIDE = (
    r"transformer\..*|token_embedding\..*|ln_final\..*|positional_embedding|text_projection"
    r"|text\..*|attn_mask"
)
IGNORED = {
    TEXT_SIDE: "CLIP's text side",
    r"logit_scale|logit_bias": "of the contrastive loss",
    r"input_resolution|context_length|vocab_size": "sizes",
}


def table(config: ViTConfig, tensors: Iterable[str]) -> Table:
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
        jax, torch = f"encoder/block_{block}", f"visual.transformer.resblocks.{block}"
        attn, mlp = f"{torch}.attn", f"{torch}.mlp"
        names = AttentionNames(
            norm=f"{torch}.ln_1",
            qkv=f"{attn}.in_proj_weight",
            bias=f"{attn}.in_proj_bias",
            out=f"{attn}.out_proj",
        )
        rules += attention(jax, names, config.heads)
        rules += expert(f"{jax}/vision", f"{torch}.ln_2", f"{mlp}.c_fc", f"{mlp}.c_proj")
    return Table(rules, {}, {}, match_reasons(tensors, IGNORED))


def config_of(shapes: Mapping[str, Shape], activation: str, options: ImportOptions) -> ViTConfig:
    """Infers CLIP's encoder from the shapes of a file with OpenAI's names.

    Raises:
      UsageError: the file does not have these names.
    """
    ranks = {
        "visual.conv1.weight": 4,
        "visual.positional_embedding": 2,
        "visual.transformer.resblocks.0.mlp.c_fc.weight": 2,
        "visual.proj": 2,
    }
    block = r"visual\.transformer\.resblocks\.\d+\.ln_1\.weight"
    return vit_config("clip", activation, shapes, ranks, block, options)


def _read(
    file: TensorFile, path: pathlib.Path, options: ImportOptions, out: pathlib.Path
) -> Report:
    # First without the settings, so that a file of another format is called that.
    config_of(file.shapes, "", options)
    settings = find_settings(path, options)
    config = config_of(file.shapes, settings.activation, settings.options)
    file = file.changed(file.tensors, *settings.notes)
    return import_teacher(file, path, config, table(config, file.tensors), out)


IMPORT = Import(
    exact="features of patches",
    gives=TEACHER,
    drops="the text side",
    read=_read,
    flags=("activation", "heads"),
)
