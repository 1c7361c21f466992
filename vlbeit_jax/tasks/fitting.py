"""Streams' settings that follow from a network: masks and lengths."""

import dataclasses

from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.config.streams import ImageStreamConfig, StreamConfig, TextStreamConfig

MASKED_PATCHES = 2 / 5  # Masked share of an image (VL-BEiT).
SMALLEST_BLOCKS = 12  # BEiT's smallest block has 16 of 196 patches, one of about twelve.


def masked_patches(patches: int) -> int:
    """Returns how many of an image's patches are masked."""
    return round(MASKED_PATCHES * patches)


def mask_block(patches: int, masked: int) -> int:
    """Returns the patches of the smallest block of a mask.

    Args:
      patches: of an image.
      masked: patches of a mask.
    """
    return max(min(max(round(patches / SMALLEST_BLOCKS), 1), masked), 1)


def fitted(stream: StreamConfig, model: ModelConfig) -> StreamConfig:
    """Returns the settings of a stream that an evaluation uses.

    A run may be scored on a stream that it was not trained on. Nobody has chosen the settings of
    that one for the network, so that texts may be too long, and masks larger than the image.
    """
    values: dict[str, int] = {}
    if isinstance(stream, TextStreamConfig):
        values["text_length"] = min(stream.text_length, model.text_positions)
    if isinstance(stream, ImageStreamConfig):
        masked = stream.num_masked_patches
        if masked and not stream.mask_block <= masked <= model.patches:
            masked = masked_patches(model.patches)
            block = mask_block(model.patches, masked)
            values |= {"num_masked_patches": masked, "mask_block": block}
    return dataclasses.replace(stream, **values)
