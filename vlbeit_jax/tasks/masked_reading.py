"""How the rows of pretraining are read: masks, words, and visual tokens as pictures."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from vlbeit_jax.config.streams import ImageStreamConfig, TextStreamConfig
from vlbeit_jax.models.visual_tokenizer import encode
from vlbeit_jax.shapes import UInt8
from vlbeit_jax.tasks.reading import Arrays, Reading, coloured
from vlbeit_jax.tasks.visual_tokens import VisualTokens, draws_pictures, pictures_of


def masked_reading(model: Any, stream: str) -> Reading:
    """Returns how the rows of an ``OpenPretrain``'s stream are read."""
    section, grid = model.stream_config(stream), model.task.model.grid
    has_images = isinstance(section, ImageStreamConfig)

    def targets(batch: Arrays) -> dict[str, UInt8[np.ndarray, "B h w 3"]]:
        return {"its visual tokens": token_pictures(model.visual, batch["image"], grid)}

    return Reading(
        words=model.text if isinstance(section, TextStreamConfig) else None,
        grid=grid if has_images else 0,
        targets=targets if has_images else None,
    )


def token_pictures(
    visual: VisualTokens, images: UInt8[np.ndarray, "B h w 3"], grid: int
) -> UInt8[np.ndarray, "B h w 3"]:
    """Returns the visual tokens of pictures, drawn by the tokenizer or as one colour a token."""
    codes = encode(visual.tokenizer, visual.frozen, jnp.asarray(images))
    if draws_pictures(visual):
        pictures = pictures_of(visual, codes)
    else:
        pictures = np.stack([coloured(each.reshape(grid, grid)) for each in np.asarray(codes)])
    larger = images.shape[1] // pictures.shape[1]
    return pictures.repeat(larger, axis=1).repeat(larger, axis=2)
