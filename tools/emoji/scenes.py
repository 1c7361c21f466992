"""Small scenes of emoji on a plain background, with the class of each pixel.

Shapes and classes are real: the alpha channel says what belongs to an emoji. Sizes, places and the
colour of the background are drawn.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.image import decode, resize
from vlbeit_jax.data.masks import mask_bytes, stored_mask

BACKGROUND = "background"  # Class 0.
SIDE, SHOWN, SIZES = 64, 3, (24, 40)  # Of a scene; emoji in it; their smallest and largest side.


def scenes(
    parts: Mapping[str, list[dict[str, Any]]], classes: Sequence[str], fold: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields a scene for each emoji, in which two others of its split are below it.

    A scene's group is that of its emoji. So an interval draws emoji, and not composed pictures.

    Args:
      parts: records of emoji by split.
      classes: of emoji; the background comes before them.
      fold: the one that is tested.
    """
    for split, records in parts.items():
        emoji = [(decode(each["image"]), stored_mask(each["alpha"])) for each in records]
        numbers = [classes.index(each["label"]) + 1 for each in records]
        for number, record in enumerate(records):
            draws = Draws("emoji scenes", fold, split, number)
            image = np.empty((SIDE, SIDE, 3))
            image[:] = [draws.uniform(0, 255) for _ in range(3)]
            mask = np.zeros((SIDE, SIDE), np.uint8)
            for shown in (draws.below(len(records)), draws.below(len(records)), number):
                _paste(draws, image, mask, emoji[shown], numbers[shown])
            encoded = cv2.imencode(".png", image.round().astype(np.uint8)[..., ::-1])[1]
            yield (
                split,
                {
                    "id": record["id"],
                    "source": record["source"],
                    "image": encoded.tobytes(),
                    "group": record["group"],
                    "mask": mask_bytes(mask),
                },
            )


def _paste(
    draws: Draws,
    image: np.ndarray,
    mask: np.ndarray,
    emoji: tuple[np.ndarray, np.ndarray],
    number: int,
) -> None:
    """Draws an emoji of a random size into a scene and its mask."""
    size = SIZES[0] + draws.below(SIZES[1] - SIZES[0] + 1)
    top, left = draws.below(SIDE - size + 1), draws.below(SIDE - size + 1)
    here = (slice(top, top + size), slice(left, left + size))
    # Emoji are stored on white.
    on_white = resize(emoji[0], size, size).astype(np.float64)
    alpha = cv2.resize(emoji[1], (size, size), interpolation=cv2.INTER_AREA) / 255
    below = (1 - alpha)[..., None]
    image[here] = np.clip(on_white + below * (image[here] - 255), 0, 255)
    mask[here][alpha > 0.5] = number
