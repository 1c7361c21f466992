"""Files like the published one of DALL-E's encoder, with small random networks."""

import math

import numpy as np
from safetensors.numpy import save_file

from vlbeit_jax.convert.formats import IMPORTS
from vlbeit_jax.convert.import_options import ImportOptions
from vlbeit_jax.models.dalle import DalleConfig

DEEP = DalleConfig(
    image_size=32, codes=50, width=8
)  # Four groups of two blocks, as the published one.
SMALL = DalleConfig(
    image_size=16, codes=32, width=8, groups=3, blocks=1
)  # A grid of 4 x 4, as the tiny model's.


def published_shapes(config: DalleConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes as the network's description states them."""

    def convolution(name, i, o, side):
        return {f"{name}.w": (o, i, side, side), f"{name}.b": (o,)}

    found, width = convolution("blocks.input", 3, config.width, 7), config.width
    for group in range(1, config.groups + 1):
        for block in range(1, config.blocks + 1):
            place, out = f"blocks.group_{group}.block_{block}", config.width * 2 ** (group - 1)
            if width != out:
                found |= convolution(f"{place}.id_path", width, out, 1)
            for number, (i, o, side) in enumerate(
                [(width, out // 4, 3), *[(out // 4, out // 4, 3)] * 2, (out // 4, out, 1)], 1
            ):
                found |= convolution(f"{place}.res_path.conv_{number}", i, o, side)
            width = out
    return found | convolution("blocks.output.conv", width, config.codes, 1)


def published(config: DalleConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Random weights and biases.

    They are so large that 1/64 of a block is visible, and weights have mean zero, so that many
    different tokens come up.
    """
    rng = np.random.default_rng(seed)

    def drawn(shape):
        if len(shape) == 1:
            return rng.standard_normal(shape, np.float32) * np.float32(0.3)
        weight = rng.standard_normal(shape, np.float32) * np.float32(
            2.5 / math.prod(shape[1:]) ** 0.5
        )
        return weight - weight.mean((1, 2, 3), keepdims=True)

    return {name: drawn(shape) for name, shape in published_shapes(config).items()}


def read(folder, config: DalleConfig, arrays=None):
    """Imports a file for a model with the encoder's own grid; returns the folder."""
    folder.mkdir(exist_ok=True)
    save_file(published(config) if arrays is None else arrays, folder / "encoder.safetensors")
    for_model = ImportOptions(image_size=16 * config.grid)
    IMPORTS["dalle"].run(folder / "encoder.safetensors", for_model, folder / "dalle")
    return folder / "dalle"
