"""BEiT and BEiT v2, pretrained or fine-tuned: a warm start of everything that images use.

BEiT takes pixels in [-1, 1] as we do, unless it was trained by its recipe for ImageNet-1k. That
recipe and BEiT v2 normalise pixels by ImageNet's mean and standard deviation, which an import as
BEiT v2 folds into the patch embedding. The networks are the same.
"""

import pathlib
from collections.abc import Iterable

import numpy as np

from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.convert.formats.base import START, Import
from vlbeit_jax.convert.import_options import (
    ImportOptions,
    check_heads,
    count_matches,
    exact_sqrt,
    match_reasons,
    require_shapes,
)
from vlbeit_jax.convert.importing import import_model
from vlbeit_jax.convert.permutations import TOKEN, patches, zero
from vlbeit_jax.convert.read_tensors import TensorFile
from vlbeit_jax.convert.rules import Report, Table, rule
from vlbeit_jax.convert.source import model_shapes
from vlbeit_jax.convert.tables import (
    beit_attention,
    beit_expert,
    layer_scale,
    linear,
    norm,
    relative_biases,
    sees_images,
)
from vlbeit_jax.errors import UsageError
from vlbeit_jax.models.teacher import PIXELS
from vlbeit_jax.types import Positions

IMAGENET = PIXELS["dino"]  # Mean and deviation of pixels in [0, 1]; DINO uses the same.
PIXELS_FLAG = "args.imagenet_default_mean_and_std"
KERNEL, BIAS = "patch_embed.proj.weight", "patch_embed.proj.bias"
SHARED = "rel_pos_bias.relative_position_bias_table"
OWN = "blocks.{block}.attn.relative_position_bias_table"
IGNORED = {
    "rel_pos_bias.relative_position_index": "computed, not learned",
    r"blocks.\d+.attn.relative_position_index": "computed, not learned",
    r"cls_pt_(layers|norm|lm_head)\..*": "BEiT v2's second path through CLS, which we do not train",
    r"(head|fc_norm)\..*": "a fine-tuned classifier",
}


def table(config: ModelConfig, tensors: Iterable[str], params: Iterable[str]) -> Table:
    """Returns the rules for the image part of a model.

    A pretrained file has a mask token, a head for visual tokens and the last norm. A fine-tuned one
    has the last norm if it classifies CLS, and none of them if it classifies the patches' mean.

    Args:
      config: of the model.
      tensors: names in the file, which tell what it has.
      params: names of all our parameters.
    """
    tensors = set(tensors)
    own = tuple(OWN.format(block=block) for block in range(config.depth))
    rules = [
        rule("vision_embed/cls", "cls_token", TOKEN),
        rule("vision_embed/patch/kernel", KERNEL, patches(config.patch_size)),
        rule("vision_embed/patch/bias", BIAS),
        rule("vision_embed/type", "", zero(config.width)),
        relative_biases(config, (SHARED,) if SHARED in tensors else own),
    ]
    left_out = {name: "BEiT has no text" for name in params if not sees_images(name)}
    of_some = {
        "a fine-tuned checkpoint has none": [rule("vision_embed/mask_token", "mask_token", TOKEN)],
        "the file has no head for visual tokens": linear("vision_head", "lm_head"),
        "the file has no last norm, because it classifies the mean of patches": norm(
            "encoder/norm", "norm"
        ),
    }
    for reason, part in of_some.items():
        if tensors & {name for each in part for name in each.torch}:
            rules += part
        else:
            left_out |= {name: reason for each in part for name in each.jax}
    for block in range(config.depth):
        jax, torch = f"encoder/block_{block}", f"blocks.{block}"
        rules += beit_attention(jax, torch, config.heads)
        rules += beit_expert(f"{jax}/vision", torch)
        rules += layer_scale(config, jax, f"{torch}.gamma_1", f"{torch}.gamma_2")
    return Table(rules, left_out, {}, match_reasons(tensors, IGNORED))


def config_of(file: TensorFile, options: ImportOptions) -> ModelConfig:
    """Infers the model from tensor shapes; text settings come from the flags.

    Raises:
      UsageError: the file does not have BEiT's names, or a flag contradicts it.
    """
    shapes = file.shapes
    biases = next((name for name in (SHARED, OWN.format(block=0)) if name in shapes), SHARED)
    ranks = {
        KERNEL: 4,
        "blocks.0.mlp.fc1.weight": 2,
        biases: 2,
        "blocks.0.norm1.weight": 1,
        "cls_token": 3,
    }
    kernel, (ffn_width, _), (rows, heads), *_ = require_shapes(
        "BEiT checkpoint with relative positions", shapes, ranks
    )
    width, _, patch_size, _ = kernel
    side = exact_sqrt(rows - 3)  # Offsets -(grid - 1) to grid - 1 along each axis.
    if side is None or side % 2 == 0:
        raise UsageError(
            f"not a BEiT checkpoint: {biases} has {rows} rows, which is not 3 more than the square "
            "of an odd number"
        )
    read = {}
    if "lm_head.weight" in shapes:
        read["codes"] = options.agree("codes", shapes["lm_head.weight"][0])
    return options.model_config(
        image_size=options.agree("image_size", (side + 1) // 2 * patch_size),
        patch_size=patch_size,
        width=width,
        depth=count_matches(shapes, r"blocks\.\d+\.norm1\.weight"),
        heads=check_heads(width, heads),
        ffn_width=ffn_width,
        positions=Positions.RELATIVE,
        layer_scale=0.1 if "blocks.0.gamma_1" in shapes else 0.0,
        **read,
    )


def fold_pixels(file: TensorFile, kernel_name: str = KERNEL, bias_name: str = BIAS) -> TensorFile:
    """Returns the file for pixels in [-1, 1] instead of ImageNet's normalisation.

    Args:
      file: of a network that takes pixels minus ImageNet's mean, over its deviation.
      kernel_name: the weight of the patch embedding.
      bias_name: its bias.
    """
    mean, deviation = (np.array(values, np.float32)[:, None, None] for values in IMAGENET)
    kernel, bias = file.tensors[kernel_name], file.tensors[bias_name]
    folded = {
        kernel_name: kernel * (0.5 / deviation),
        bias_name: bias + (kernel * ((0.5 - mean) / deviation)).sum((1, 2, 3)),
    }
    return file.changed(
        {**file.tensors, **folded},
        f"ImageNet's mean and deviation of pixels are folded into {kernel_name} and {bias_name}",
    )


def check_pixels(file: TensorFile, format: str, other: str, by_imagenet: bool) -> None:
    """Raises a ``UsageError`` if the file's training command normalised pixels in the other way.

    Both programs choose with a flag: BEiT pretrained on ImageNet-22k without it, and its recipe for
    ImageNet-1k sets it, as all of BEiT v2 does. Most files lack the command's arguments.
    """
    said = file.metadata.get(PIXELS_FLAG)
    if said in (None, str(by_imagenet)):
        return
    how = "by ImageNet's mean and deviation" if said == "True" else "to [-1, 1]"
    raise UsageError(
        f"--format={format}: the file was trained with {PIXELS_FLAG.removeprefix('args.')}={said}, "
        f"so its pixels are normalised {how}. Import it with --format={other}"
    )


def _read(
    file: TensorFile, path: pathlib.Path, options: ImportOptions, out: pathlib.Path
) -> Report:
    check_pixels(file, "beit", "beit2", by_imagenet=False)
    return _import(file, path, options, out)


def _import(
    file: TensorFile, path: pathlib.Path, options: ImportOptions, out: pathlib.Path
) -> Report:
    config = config_of(file, options)
    rules = table(config, file.tensors, model_shapes(config))
    return import_model(path, file, rules, config, out)


def _read_v2(
    file: TensorFile, path: pathlib.Path, options: ImportOptions, out: pathlib.Path
) -> Report:
    check_pixels(file, "beit2", "beit", by_imagenet=True)
    config_of(file, options)  # Names the missing tensors before any is folded.
    return _import(fold_pixels(file), path, options, out)


FLAGS = ("image_size", "codes", "vocabulary", "text_positions")
IMPORT = Import(
    exact="images: states, visual-token logits",
    gives=START,
    drops="a classifier; everything for text is initialised",
    read=_read,
    flags=FLAGS,
)
IMPORT_V2 = Import(
    exact="images: states, visual-token logits; the normalisation of pixels is folded",
    gives=START,
    drops="the CLS layers and their head, a classifier; everything for text is initialised",
    read=_read_v2,
    flags=FLAGS,
)
