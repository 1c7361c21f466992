"""From logits of windows to a class for each pixel of a picture of any size.

Needs NumPy alone: an export for PyTorch takes this file as it is.

A picture is resized so that its shorter side is that of a window, and windows are laid over it, as
mmsegmentation does. Where windows overlap, their logits are averaged. The result is resized to the
picture.
"""

from typing import NamedTuple

import numpy as np

LONGEST = 4  # Sides of a window that the longer side of a resized picture has at most (2048 x 512).
STRIP = 64  # Rows of a picture at once: logits of 150 classes take 600 bytes a pixel.


class Size(NamedTuple):
    """Height and width, pixels."""

    height: int
    width: int


def scaled(picture: Size, side: int, scale: float = 1.0) -> Size:
    """Returns the size of a picture whose shorter side becomes ``scale`` times ``side``.

    The ratio of the sides stays. The longer side becomes ``LONGEST * scale * side`` at most; then
    the shorter one is less.
    """
    factor = min(scale * side / min(picture), LONGEST * scale * side / max(picture))
    return Size(*(max(1, int(length * factor + 0.5)) for length in picture))


def starts(length: int, side: int, stride: int) -> list[int]:
    """Returns where windows begin along a side; the last one ends where the picture does."""
    count = max(-(-(length - side) // stride), 0) + 1
    return [max(min(index * stride, length - side), 0) for index in range(count)]


def places(size: Size, side: int, stride: int) -> list[tuple[int, int]]:
    """Returns the top left corner of each window, row by row."""
    rows, columns = starts(size.height, side, stride), starts(size.width, side, stride)
    return [(top, left) for top in rows for left in columns]


class Canvas:
    """The logits of a picture, window by window.

    Attributes:
      waiting: number of windows that are missing.
    """

    def __init__(self, size: Size, windows: int):
        """Takes the size of the resized picture, and the number of its windows."""
        self._size, self.waiting = size, windows
        self._sum: np.ndarray | None = None
        self._windows = np.zeros((*size, 1), np.float32)

    def add(self, place: tuple[int, int], logits: np.ndarray, side: int) -> None:
        """Adds a window.

        Args:
          place: of its top left corner.
          logits: at any size, float32 [h, w, C].
          side: of the window. What lies outside of the picture is left out.
        """
        if self._sum is None:
            self._sum = np.zeros((*self._size, logits.shape[-1]), np.float32)
        (top, left), size = place, self._size
        height, width = min(side, size.height - top), min(side, size.width - left)
        own = resized(logits, Size(side, side))[:height, :width]
        self._sum[top : top + height, left : left + width] += own
        self._windows[top : top + height, left : left + width] += 1
        self.waiting -= 1

    def classes(self, picture: Size) -> np.ndarray:
        """Returns the class of each pixel of the picture, uint8 [height, width].

        Logits are resized to the picture before the largest one is found.
        """
        assert self._sum is not None and not self.waiting, "all windows are there"
        mean = self._sum / self._windows
        strips = range(0, picture.height, STRIP)
        return np.concatenate(
            [_strip(mean, picture, first).argmax(axis=-1) for first in strips]
        ).astype(np.uint8)


def resized(x: np.ndarray, size: Size) -> np.ndarray:
    """Returns a map [h, w, C] at another size.

    Equals PyTorch's ``interpolate(mode="bilinear", align_corners=False)``.
    """
    if x.shape[:2] == tuple(size):
        return x
    return _along_columns(_rows(x, size.height, 0, size.height), size.width)


def _strip(x: np.ndarray, size: Size, first: int) -> np.ndarray:
    """Returns some rows of ``resized``."""
    last = min(first + STRIP, size.height)
    return _along_columns(_rows(x, size.height, first, last), size.width)


def _rows(x: np.ndarray, height: int, first: int, last: int) -> np.ndarray:
    low, high, share = _neighbours(x.shape[0], height, first, last)
    return x[low] + share[:, None, None] * (x[high] - x[low])


def _along_columns(x: np.ndarray, width: int) -> np.ndarray:
    low, high, share = _neighbours(x.shape[1], width, 0, width)
    return x[:, low] + share[None, :, None] * (x[:, high] - x[:, low])


def _neighbours(source: int, target: int, first: int, last: int) -> tuple[np.ndarray, ...]:
    """Returns the neighbours of places ``first`` to ``last``, and the share of the second ones."""
    centre = np.clip((np.arange(first, last) + 0.5) * source / target - 0.5, 0, source - 1)
    low = np.floor(centre).astype(int)
    return low, np.minimum(low + 1, source - 1), (centre - low).astype(np.float32)
