"""Groups of near-duplicate emoji, which must be on one side of a split.

A man, a woman and a person who run are one picture with another head of hair, and the thirty
families are one picture with other children. If some of them are trained on and others tested, the
test measures memory. Two rules put emoji into one group: their names are equal but for words of
gender, hair, rank, colour, direction and size (or both are keycaps, clocks, families, arrows or
hearts); or their pictures are nearly equal at 16 x 16 pixels.
"""

import re
from collections.abc import Sequence

import numpy as np

from vlbeit_jax.shapes import Bool, Int, UInt8

PEOPLE = frozenset(
    """
    man woman men women boy girl person people male female prince princess mrs mx
    hair blond bald curly beard
    """.split()
)
VARIANTS = PEOPLE | frozenset(
    """
    red orange yellow green blue purple brown black white grey gray pink light dark
    left right up down upwards downwards leftwards rightwards facing
    small medium large
    """.split()
)
# A word of the name, and the group of all emoji that have it.
FAMILIES = {
    "keycap": "keycap",
    "o’clock": "clock",
    "thirty": "clock",
    "clock": "clock",
    "family": "family",
    "arrow": "arrow",
    "arrows": "arrow",
    "heart": "heart",
    "hearts": "heart",
}
SIDE = 16
NEAR = 0.06  # Root of the mean squared difference of two pictures, of the full range of a value.
WORD = re.compile(r"[\w’'&#*!.]+")  # A hyphen parts words: "left-facing fist".


def name_key(name: str) -> str:
    """Returns what is left of a name without the words by which variants differ."""
    words = WORD.findall(name.casefold())
    family = next((FAMILIES[word] for word in words if word in FAMILIES), "")
    left = " ".join(word for word in words if word not in VARIANTS)
    if not (family or left) and not PEOPLE.isdisjoint(words):
        return "person"  # "woman: red hair".
    return family or left or name.casefold()  # "orange", the fruit.


def near_pairs(pictures: UInt8[np.ndarray, "A height width 3"]) -> Bool[np.ndarray, "A A"]:
    """Returns which pictures are nearly equal when they are shrunk to 16 x 16 pixels.

    All in integers, so that no pair depends on how a processor rounds.

    Args:
      pictures: on white; their sides are multiples of 16.
    """
    count, height, width, _ = pictures.shape
    blocks = pictures.reshape(count, SIDE, height // SIDE, SIDE, width // SIDE, 3)
    sums = blocks.sum(axis=(2, 4), dtype=np.int64).reshape(count, -1)
    squares = (sums**2).sum(axis=1)
    distances = squares[:, None] + squares[None] - 2 * sums @ sums.T
    full = 255 * (height // SIDE) * (width // SIDE)
    return distances < (NEAR * full) ** 2 * sums.shape[1]


def group_names(names: Sequence[str], pictures: UInt8[np.ndarray, "A height width 3"]) -> list[str]:
    """Returns the group of each emoji: the key of the first name in it.

    Args:
      names: of the emoji, in English.
      pictures: on white; their sides are multiples of 16.
    """
    keys = [name_key(name) for name in names]
    root = np.array([keys.index(key) for key in keys])
    for first, second in np.argwhere(np.triu(near_pairs(pictures), 1)):
        _join(root, int(root[first]), int(root[second]))
    return [keys[number] for number in root]


def _join(root: Int[np.ndarray, " A"], one: int, other: int) -> None:
    """Makes one group of two; the earlier emoji names it."""
    root[root == max(one, other)] = min(one, other)
