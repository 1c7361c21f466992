"""The encoder of DALL-E's dVAE, as a visual tokenizer."""

import dataclasses
import re
from collections.abc import Mapping

from vlbeit_jax.convert.layouts import CONVOLUTION
from vlbeit_jax.convert.rules import Rule, Shape, Table, rule
from vlbeit_jax.convert.unsaid import Unsaid, grid_of, required
from vlbeit_jax.models.dalle import CONVOLUTIONS, DalleConfig


def table(config: DalleConfig) -> Table:
    """Every parameter under the published names."""
    rules = _convolution("input", "blocks.input") + _convolution("output", "blocks.output.conv")
    for group in range(1, config.groups + 1):
        for block in range(1, config.blocks + 1):
            ours, place = f"group_{group}_block_{block}", f"blocks.group_{group}.block_{block}"
            for number in range(1, CONVOLUTIONS + 1):
                rules += _convolution(f"{ours}/conv_{number}", f"{place}.res_path.conv_{number}")
            if group > 1 and block == 1:
                rules += _convolution(f"{ours}/identity", f"{place}.id_path")
    return Table(rules)


def _convolution(ours: str, theirs: str) -> list[Rule]:
    return [rule(f"{ours}/kernel", f"{theirs}.w", CONVOLUTION), rule(f"{ours}/bias", f"{theirs}.b")]


def config_of(theirs: Mapping[str, Shape], unsaid: Unsaid) -> DalleConfig:
    """The encoder that a file's shapes speak of, at the image size that gives as many tokens as the model has patches.

    Raises:
      UsageError: the file has not the encoder's names, or no whole patches go into the model's images.
    """
    (width, *_), (codes, *_), _ = required(
        "encoder of DALL-E's dVAE",
        theirs,
        {
            "blocks.input.w": 4,
            "blocks.output.conv.w": 4,
            "blocks.group_1.block_1.res_path.conv_1.w": 4,
        },
    )
    groups, blocks = (
        len(
            [
                name
                for name in theirs
                if re.fullmatch(rf"blocks\.{block}\.res_path\.conv_1\.w", name)
            ]
        )
        for block in (r"group_\d+\.block_1", r"group_1\.block_\d+")
    )
    network, model = (
        DalleConfig(codes=codes, width=width, groups=groups, blocks=blocks),
        unsaid.model(),
    )
    return dataclasses.replace(
        network, image_size=grid_of(model.image_size, model.patch_size) * network.patch_size
    )
