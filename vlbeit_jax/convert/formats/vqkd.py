"""BEiT v2's visual tokenizers (VQ-KD)."""

import pathlib
from collections.abc import Iterable, Mapping

import numpy as np

from vlbeit_jax.config.networks import VisualTokenizerConfig
from vlbeit_jax.convert.formats.base import TOKENIZER, Import
from vlbeit_jax.convert.import_options import (
    ImportOptions,
    count_matches,
    match_reasons,
    require_shapes,
)
from vlbeit_jax.convert.importing import import_visual_tokenizer
from vlbeit_jax.convert.permutations import ROWS, TOKEN, patches
from vlbeit_jax.convert.read_tensors import TensorFile
from vlbeit_jax.convert.rules import Report, Shape, Table, rule
from vlbeit_jax.convert.source import CODEBOOK
from vlbeit_jax.convert.tables import beit_attention, beit_expert, linear, norm
from vlbeit_jax.errors import UsageError

IGNORED = {
    r"quantize\.(embedding\.)?(cluster_size|embed_avg|initted)": "statistics of training",
    r"(loss|teacher|scaling).*": "the teacher and its loss",
}
CODES = "quantize.embedding.weight"
# Lengths that float32 leaves of a normalised code, and those that half precision leaves: bfloat16
# moves a value by up to 2^-9 of itself.
EXACT, ROUNDED = 1e-5, 2.0**-8
TEACHERS = {512: "clip", 768: "dino"}  # By the width of their features; both are ViT-B/16.


def table(config: VisualTokenizerConfig, tensors: Iterable[str]) -> Table:
    """Encoder, codebook and decoder; ``tensors`` are the names in the file."""
    rules = [rule(CODEBOOK, CODES)]
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
            jax, torch = f"{part}/block_{block}", f"{part}.blocks.{block}"
            rules += beit_attention(jax, torch, config.heads)
            rules += beit_expert(f"{jax}/vision", torch)
    for jax, torch in (("to_code", "encode_task_layer"), ("to_target", "decode_task_layer")):
        rules += linear(f"{jax}/inner", f"{torch}.0") + linear(f"{jax}/outer", f"{torch}.2")
    return Table(rules, {}, {}, match_reasons(tensors, IGNORED))


def config_of(shapes: Mapping[str, Shape], options: ImportOptions) -> VisualTokenizerConfig:
    """Infers the tokenizer from tensor shapes.

    Raises:
      UsageError: the file does not have VQ-KD's names, or its teacher is unknown.
    """
    ranks = {
        "encoder.patch_embed.proj.weight": 4,
        "encoder.pos_embed": 3,
        "encoder.blocks.0.mlp.fc1.weight": 2,
        CODES: 2,
        "decode_task_layer.2.weight": 2,
    }
    kernel, positions, (ffn_width, _), codebook, (target, _) = require_shapes(
        "VQ-KD checkpoint", shapes, ranks
    )
    width, _, patch_size, _ = kernel
    if target not in TEACHERS:
        raise UsageError(
            f"decode_task_layer predicts {target} values, but known teachers have {TEACHERS} "
            "(CLIP and DINO ViT-B/16)"
        )
    depth = {
        part: count_matches(shapes, rf"{part}\.blocks\.\d+\.norm1\.weight")
        for part in ("encoder", "decoder")
    }
    return VisualTokenizerConfig(
        image_size=round((positions[1] - 1) ** 0.5) * patch_size,
        patch_size=patch_size,
        width=width,
        heads=options.count_heads(width),
        ffn_width=ffn_width,
        encoder_depth=depth["encoder"],
        decoder_depth=depth["decoder"],
        codes=codebook[0],
        code_width=codebook[1],
        teacher=TEACHERS[target],
    )


def unit_codes(file: TensorFile) -> TensorFile:
    """Returns the file with codes of length 1, as our tokenizer needs them.

    BEiT v2 normalises the features and takes the code at the smallest Euclidean distance, with the
    codes as they are (``norm_ema_quantizer.py``). It starts from unit vectors and normalises all
    codes after every update, so that the codes of a trained tokenizer have length 1, and its
    nearest code is ours, the one with the largest cosine. Where half precision has rounded them,
    normalising restores what training had. Codes of other lengths are another matter: the distance
    depends on a code's length and the angle does not, so normalising would give other tokens than
    the file's own program gives. Such a file is not of BEiT v2's training, and is refused.

    Raises:
      UsageError: a code is not of unit length.
    """
    lengths = np.linalg.norm(file.tensors[CODES].astype(np.float64), axis=1, keepdims=True)
    off = np.abs(lengths - 1).max()
    if off <= EXACT or not np.isfinite(off):  # The import refuses what is not finite by itself.
        return file
    if off <= ROUNDED:
        codes = (file.tensors[CODES] / lengths).astype(np.float32)
        return file.changed(
            {**file.tensors, CODES: codes},
            f"{CODES} is normalised; rounding had moved the codes' lengths by up to {off:.1e}",
        )
    raise UsageError(
        f"{CODES} holds codes of lengths {lengths.min():.3g} to {lengths.max():.3g}, but BEiT v2 "
        "keeps all of them at 1. At other lengths its program chooses by distance and ours by "
        "angle, which gives other tokens. Give a tokenizer that BEiT v2's program has trained; "
        "one whose codes are all 0 was saved before its first step"
    )


def _read(
    file: TensorFile, path: pathlib.Path, options: ImportOptions, out: pathlib.Path
) -> Report:
    config = config_of(file.shapes, options)
    file = unit_codes(file)
    rules = table(config, file.tensors)
    return import_visual_tokenizer(path, file, rules, config, out)


IMPORT = Import(
    exact="visual tokens, predictions of the teacher",
    gives=TOKENIZER,
    drops="training statistics",
    read=_read,
    flags=("heads",),
)
