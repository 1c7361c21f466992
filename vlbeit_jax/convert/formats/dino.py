"""DINO's ViT-B/16, as a teacher of VQ-KD: the backbone alone, or a whole training checkpoint.

DINO's ``main_dino.py`` saves a student and a teacher, each a backbone and a projection head. The
teacher, an average of students, is what DINO publishes and evaluates.
"""

import pathlib
from collections.abc import Iterable, Mapping

from vlbeit_jax.convert.formats.base import TEACHER, Import
from vlbeit_jax.convert.formats.vit import import_teacher, vit_config
from vlbeit_jax.convert.import_options import ImportOptions, match_reasons
from vlbeit_jax.convert.permutations import ROWS, TOKEN, patches
from vlbeit_jax.convert.read_tensors import TensorFile
from vlbeit_jax.convert.rules import Report, Shape, Table, rule
from vlbeit_jax.convert.tables import AttentionNames, attention, expert, norm
from vlbeit_jax.models.teacher import GELU, ViTConfig

IGNORED = {r"head\..*": "DINO's projection head, which is not used as a target"}


def table(config: ViTConfig, tensors: Iterable[str]) -> Table:
    """Returns the rules for the names of DINO's own vision transformer."""
    rules = [
        rule("embed/cls", "cls_token", TOKEN),
        rule("embed/positions", "pos_embed", ROWS),
        rule("embed/patch/kernel", "patch_embed.proj.weight", patches(config.patch_size)),
        rule("embed/patch/bias", "patch_embed.proj.bias"),
        *norm("encoder/norm", "norm"),
    ]
    for block in range(config.depth):
        jax, torch = f"encoder/block_{block}", f"blocks.{block}"
        attn, mlp = f"{torch}.attn", f"{torch}.mlp"
        names = AttentionNames(
            norm=f"{torch}.norm1",
            qkv=f"{attn}.qkv.weight",
            bias=f"{attn}.qkv.bias",
            out=f"{attn}.proj",
        )
        rules += attention(jax, names, config.heads)
        rules += expert(f"{jax}/vision", f"{torch}.norm2", f"{mlp}.fc1", f"{mlp}.fc2")
    return Table(rules, {}, {}, match_reasons(tensors, IGNORED))


def config_of(shapes: Mapping[str, Shape], options: ImportOptions) -> ViTConfig:
    """Infers DINO's encoder from the shapes of a file with DINO's names.

    Raises:
      UsageError: the file does not have these names.
    """
    ranks = {
        "patch_embed.proj.weight": 4,
        "pos_embed": 3,
        "blocks.0.mlp.fc1.weight": 2,
        "norm.weight": 1,
    }
    return vit_config("dino", GELU, shapes, ranks, r"blocks\.\d+\.norm1\.weight", options)


def _read(
    file: TensorFile, path: pathlib.Path, options: ImportOptions, out: pathlib.Path
) -> Report:
    config = config_of(file.shapes, options)
    return import_teacher(file, path, config, table(config, file.tensors), out)


IMPORT = Import(
    exact="features of patches",
    gives=TEACHER,
    drops="the projection head; the student of a training checkpoint",
    read=_read,
    flags=("heads",),
    parts=("teacher",),
    prefixes=("backbone.",),  # DINO's MultiCropWrapper holds the network under this name.
)
