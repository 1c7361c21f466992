"""Random erasing (arXiv 1708.04896): the box here, its noise on the device.

Noise of unit variance in normalised pixels does not fit into bytes, so only the box travels with
the row (``objectives.mixing`` fills it).
"""

import math

import numpy as np

from vlbeit_jax.data.draws import Draws
from vlbeit_jax.shapes import Int

AREA, ASPECT, TRIES = (0.02, 1 / 3), (0.3, 1 / 0.3), 10


def erased_box(draws: Draws, size: int, probability: float) -> Int[np.ndarray, "4"]:
    """Returns top, left, height and width of the box to erase; zeros for none.

    The area and the logarithm of the aspect ratio (height over width) are uniform. After ten boxes
    that do not fit, nothing is erased.
    """
    if draws.uniform() < probability:
        for _ in range(TRIES):
            area = size * size * draws.uniform(*AREA)
            ratio = math.exp(draws.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
            height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < height < size and 0 < width < size:
                top, left = draws.below(size - height + 1), draws.below(size - width + 1)
                return np.array([top, left, height, width], np.int32)
    return np.zeros(4, np.int32)
