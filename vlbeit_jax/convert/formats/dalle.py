"""The encoder of DALL-E's dVAE, as a visual tokenizer."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping

from vlbeit_jax.convert.formats.base import TOKENIZER, Import
from vlbeit_jax.convert.import_options import (
    ImportOptions,
    count_matches,
    grid_of,
    require_shapes,
)
from vlbeit_jax.convert.importing import import_network
from vlbeit_jax.convert.permutations import CONVOLUTION
from vlbeit_jax.convert.read_tensors import TensorFile
from vlbeit_jax.convert.rules import Report, Rule, Shape, Table, rule
from vlbeit_jax.models.dalle import CONVOLUTIONS, DalleConfig, DalleEncoder
from vlbeit_jax.models.visual_tokenizer import tokenizer_shapes
from vlbeit_jax.tasks.visual_tokens import write_dalle


def table(config: DalleConfig) -> Table:
    """Returns a rule for every parameter, under its published name."""
    rules = _convolution("input", "blocks.input") + _convolution("output", "blocks.output.conv")
    for group in range(1, config.groups + 1):
        for block in range(1, config.blocks + 1):
            jax, torch = f"group_{group}_block_{block}", f"blocks.group_{group}.block_{block}"
            for number in range(1, CONVOLUTIONS + 1):
                rules += _convolution(f"{jax}/conv_{number}", f"{torch}.res_path.conv_{number}")
            if group > 1 and block == 1:
                rules += _convolution(f"{jax}/identity", f"{torch}.id_path")
    return Table(rules)


def _convolution(jax: str, torch: str) -> list[Rule]:
    return [rule(f"{jax}/kernel", f"{torch}.w", CONVOLUTION), rule(f"{jax}/bias", f"{torch}.b")]


def config_of(shapes: Mapping[str, Shape], options: ImportOptions) -> DalleConfig:
    """Infers the encoder from tensor shapes.

    Its image size is the one that gives as many tokens as the model has patches.

    Raises:
      UsageError: the file does not have the encoder's names, or the model's images are not whole
        patches.
    """
    ranks = {
        "blocks.input.w": 4,
        "blocks.output.conv.w": 4,
        "blocks.group_1.block_1.res_path.conv_1.w": 4,
    }
    (width, *_), (codes, *_), _ = require_shapes("encoder of DALL-E's dVAE", shapes, ranks)
    first_convolution = r"\.res_path\.conv_1\.w"
    network = DalleConfig(
        codes=codes,
        width=width,
        groups=count_matches(shapes, r"blocks\.group_\d+\.block_1" + first_convolution),
        blocks=count_matches(shapes, r"blocks\.group_1\.block_\d+" + first_convolution),
    )
    model = options.model_config()
    grid = grid_of(model.image_size, model.patch_size)
    return dataclasses.replace(network, image_size=grid * network.patch_size)


def _read(
    file: TensorFile, path: pathlib.Path, options: ImportOptions, out: pathlib.Path
) -> Report:
    config = config_of(file.shapes, options)
    describe = functools.partial(write_dalle, config=config)
    return import_network(
        path,
        file,
        table(config),
        tokenizer_shapes(DalleEncoder(config))["params"],
        describe,
        out,
    )


IMPORT = Import(
    exact="visual tokens",
    gives=TOKENIZER,
    drops="nothing: the decoder is another file",
    read=_read,
    flags=("image_size",),
)
