"""CLIP's and DINO's ViT-B/16 image encoders, as teachers of VQ-KD."""

import functools
import pathlib
from collections.abc import Callable, Iterable, Mapping

from vlbeit_jax.convert.formats.base import TEACHER, Import
from vlbeit_jax.convert.import_options import (
    ImportOptions,
    count_matches,
    match_reasons,
    require_shapes,
)
from vlbeit_jax.convert.importing import import_network
from vlbeit_jax.convert.permutations import ROWS, TOKEN, patches, zero
from vlbeit_jax.convert.read_tensors import TensorFile
from vlbeit_jax.convert.rules import Report, Shape, Table, rule
from vlbeit_jax.convert.tables import AttentionNames, attention, expert, norm
from vlbeit_jax.models.teacher import ViTConfig
from vlbeit_jax.tasks.teachers import abstract_params, write_teacher

CLIP_TEXT = (
    r"transformer\..*|token_embedding\..*|ln_final\..*|positional_embedding|text_projection"
    r"|logit_scale"
)
CLIP_IGNORED = {
    CLIP_TEXT: "CLIP's text side",
    r"input_resolution|context_length|vocab_size": "sizes",
}
DINO_IGNORED = {r"head\..*": "DINO's projection head, which is not used as a target"}


def clip_table(config: ViTConfig, tensors: Iterable[str]) -> Table:
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
        ours, torch = f"encoder/block_{block}", f"visual.transformer.resblocks.{block}"
        attn, mlp = f"{torch}.attn", f"{torch}.mlp"
        names = AttentionNames(
            norm=f"{torch}.ln_1",
            qkv=f"{attn}.in_proj_weight",
            bias=f"{attn}.in_proj_bias",
            out=f"{attn}.out_proj",
        )
        rules += attention(ours, names, config.heads)
        rules += expert(f"{ours}/vision", f"{torch}.ln_2", f"{mlp}.c_fc", f"{mlp}.c_proj")
    return Table(rules, {}, {}, match_reasons(tensors, CLIP_IGNORED))


def dino_table(config: ViTConfig, tensors: Iterable[str]) -> Table:
    """The names of DINO's own vision transformer."""
    rules = [
        rule("embed/cls", "cls_token", TOKEN),
        rule("embed/positions", "pos_embed", ROWS),
        rule("embed/patch/kernel", "patch_embed.proj.weight", patches(config.patch_size)),
        rule("embed/patch/bias", "patch_embed.proj.bias"),
        *norm("encoder/norm", "norm"),
    ]
    for block in range(config.depth):
        ours, torch = f"encoder/block_{block}", f"blocks.{block}"
        attn, mlp = f"{torch}.attn", f"{torch}.mlp"
        names = AttentionNames(
            norm=f"{torch}.norm1",
            qkv=f"{attn}.qkv.weight",
            bias=f"{attn}.qkv.bias",
            out=f"{attn}.proj",
        )
        rules += attention(ours, names, config.heads)
        rules += expert(f"{ours}/vision", f"{torch}.norm2", f"{mlp}.fc1", f"{mlp}.fc2")
    return Table(rules, {}, {}, match_reasons(tensors, DINO_IGNORED))


def clip_config(shapes: Mapping[str, Shape], options: ImportOptions) -> ViTConfig:
    """Infers CLIP's encoder from the shapes of a file with OpenAI's names."""
    ranks = {
        "visual.conv1.weight": 4,
        "visual.positional_embedding": 2,
        "visual.transformer.resblocks.0.mlp.c_fc.weight": 2,
        "visual.proj": 2,
    }
    block = r"visual\.transformer\.resblocks\.\d+\.ln_1\.weight"
    return _config("clip", shapes, ranks, block, options)


def dino_config(shapes: Mapping[str, Shape], options: ImportOptions) -> ViTConfig:
    """Infers DINO's encoder from the shapes of a file with DINO's names."""
    ranks = {
        "patch_embed.proj.weight": 4,
        "pos_embed": 3,
        "blocks.0.mlp.fc1.weight": 2,
        "norm.weight": 1,
    }
    return _config("dino", shapes, ranks, r"blocks\.\d+\.norm1\.weight", options)


def _config(
    kind: str,
    shapes: Mapping[str, Shape],
    ranks: Mapping[str, int],
    block: str,
    options: ImportOptions,
) -> ViTConfig:
    kernel, positions, up, features = require_shapes(f"{kind} checkpoint", shapes, ranks)
    width, _, patch_size, _ = kernel
    grid = round((positions[-2] - 1) ** 0.5)  # One of the positions is CLS.
    return ViTConfig(
        kind,
        grid * patch_size,
        patch_size,
        width,
        count_matches(shapes, block),
        options.count_heads(width),
        up[0],
        features[-1],
    )


def _reader(
    config_of: Callable[[Mapping[str, Shape], ImportOptions], ViTConfig],
    table_of: Callable[[ViTConfig, Iterable[str]], Table],
) -> Callable[[TensorFile, pathlib.Path, ImportOptions, pathlib.Path], Report]:
    def read(
        file: TensorFile, path: pathlib.Path, options: ImportOptions, out: pathlib.Path
    ) -> Report:
        config = config_of(file.shapes, options)
        rules = table_of(config, file.tensors)
        describe = functools.partial(write_teacher, vit=config)
        return import_network(path, file.tensors, rules, abstract_params(config), describe, out)

    return read


IMPORT_CLIP = Import(
    exact="features of patches",
    gives=TEACHER,
    drops="the text side",
    read=_reader(clip_config, clip_table),
    flags=("heads",),
)
IMPORT_DINO = Import(
    exact="features of patches",
    gives=TEACHER,
    drops="the projection head",
    read=_reader(dino_config, dino_table),
    flags=("heads",),
)
