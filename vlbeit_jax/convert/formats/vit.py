"""What the image encoders of CLIP and DINO have in common, as teachers of VQ-KD."""

import functools
import pathlib
from collections.abc import Mapping

from vlbeit_jax.convert.import_options import ImportOptions, count_matches, require_shapes
from vlbeit_jax.convert.importing import import_network
from vlbeit_jax.convert.read_tensors import TensorFile
from vlbeit_jax.convert.rules import Report, Shape, Table
from vlbeit_jax.models.teacher import ViTConfig
from vlbeit_jax.tasks.teachers import abstract_params, write_teacher


def vit_config(
    kind: str,
    activation: str,
    shapes: Mapping[str, Shape],
    ranks: Mapping[str, int],
    block: str,
    options: ImportOptions,
) -> ViTConfig:
    """Infers an encoder from the shapes of its tensors.

    Args:
      kind: of teacher.
      activation: which no shape tells.
      shapes: of all tensors.
      ranks: number of axes of the patch embedding, the positions, the first expansion of a block
        and a tensor whose last axis is a patch's features, in this order.
      block: pattern of a name that each block has once.
      options: the command's flags.

    Raises:
      UsageError: the file does not have these names.
    """
    kernel, positions, up, features = require_shapes(f"{kind} checkpoint", shapes, ranks)
    width, _, patch_size, _ = kernel
    grid = round((positions[-2] - 1) ** 0.5)  # One of the positions is CLS.
    return ViTConfig(
        kind=kind,
        image_size=grid * patch_size,
        patch_size=patch_size,
        width=width,
        depth=count_matches(shapes, block),
        heads=options.count_heads(width),
        ffn_width=up[0],
        out=features[-1],
        activation=activation,
    )


def import_teacher(
    file: TensorFile, path: pathlib.Path, config: ViTConfig, table: Table, out: pathlib.Path
) -> Report:
    """Writes the folder of a teacher from a file's tensors."""
    describe = functools.partial(write_teacher, vit=config)
    return import_network(path, file, table, abstract_params(config), describe, out)
