"""Classes of the pixels of pictures of any size, window by window."""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from vlbeit_jax.data import image as images
from vlbeit_jax.data.examples.images import pixels_of
from vlbeit_jax.data.examples.segmented import GREY
from vlbeit_jax.data.records import Records
from vlbeit_jax.ops.windows import Canvas, Size, places, scaled
from vlbeit_jax.progress import counted
from vlbeit_jax.shapes import Array, Tree, UInt8
from vlbeit_jax.tasks.base import Place
from vlbeit_jax.tasks.predicting import rows_at_once
from vlbeit_jax.training.mesh import on_mesh, put_batch, replicated

THREADS = 4  # Resize logits to pictures while the devices compute; each takes some 100 MB.
# From parameters and a batch with ``image`` to logits [B, h, w, C].
Logits = Callable[[Tree, dict[str, Array]], Array]


@dataclasses.dataclass(frozen=True)
class Windows:
    """How a picture is cut.

    Attributes:
      side: of a window, pixels.
      stride: from a window to the next; 0: one window sees the whole picture as a square.
    """

    side: int
    stride: int

    def size(self, picture: Size) -> Size:
        """Returns the size of a picture whose windows are cut."""
        return scaled(picture, self.side) if self.stride else Size(self.side, self.side)

    def places(self, picture: Size) -> list[tuple[int, int]]:
        """Returns the top left corner of each window of the resized picture."""
        return places(self.size(picture), self.side, self.stride or self.side)

    def cut(self, pixels: UInt8[np.ndarray, "h w 3"]) -> list[UInt8[np.ndarray, "side side 3"]]:
        """Returns the windows; what lies outside of the picture is grey."""
        picture = Size(*pixels.shape[:2])
        view, windows = images.resize(pixels, *self.size(picture)), []
        for top, left in self.places(picture):
            part = view[top : top + self.side, left : left + self.side]
            missing = [(0, self.side - length) for length in part.shape[:2]]
            windows.append(np.pad(part, [*missing, (0, 0)], constant_values=GREY))
        return windows


class _Window(NamedTuple):
    """A window of a picture, the place of its top left corner, and where its logits go."""

    canvas: Canvas
    place: tuple[int, int]
    pixels: np.ndarray


@functools.cache
def _compiled(logits: Logits, mesh: Mesh) -> Callable[..., Any]:
    return jax.jit(logits, out_shardings=replicated(mesh))


def _compute(
    logits: Logits, params: Tree, side: int, size: int, place: Place, batch: list[_Window]
) -> None:
    """Adds the logits of some windows to their canvases; ``size`` rows are computed at once."""
    rows = np.stack([each.pixels for each in batch])
    rows = np.pad(rows, [(0, size - len(batch)), (0, 0), (0, 0), (0, 0)])
    with on_mesh(place.mesh):
        given = put_batch({"image": rows[place.shard.rows(size)]}, place.mesh)
        computed = jax.device_get(_compiled(logits, place.mesh)(params, given))
    for window, own in zip(batch, computed, strict=False):
        window.canvas.add(window.place, np.asarray(own, np.float32), side)


def segmented(
    logits: Logits,
    params: Tree,
    records: Records,
    windows: Windows,
    batch_size: int,
    place: Place,
    *,
    pictures: int = 0,
) -> Iterator[UInt8[np.ndarray, "height width"]]:
    """Yields the class of each pixel of each record's picture, in their order.

    Windows of several pictures fill a batch; the last one is padded, so one program serves all.

    Args:
      logits: hashable, because it is compiled once.
      params: on the devices.
      records: with ``image``.
      windows: how pictures are cut.
      batch_size: of training.
      place: devices, this host's rows.
      pictures: after which to stop; 0: take all.
    """
    count = min(pictures or len(records), len(records))
    size = rows_at_once(count, batch_size, place.mesh)
    compute = functools.partial(_compute, logits, params, windows.side, size, place)
    # A picture is open until all its windows are computed, some of which may wait in ``batch``. A
    # thread then resizes its logits. Both queues are in the order of the records, as results are.
    open_pictures: collections.deque[tuple[Canvas, Size]] = collections.deque()
    resizing: collections.deque[Future] = collections.deque()
    batch: list[_Window] = []
    with ThreadPoolExecutor(THREADS) as pool:

        def finish() -> Iterator[np.ndarray]:
            """Hands pictures on to the threads, and yields results while there are many."""
            while open_pictures and not open_pictures[0][0].waiting:
                canvas, picture = open_pictures.popleft()
                resizing.append(pool.submit(canvas.classes, picture))
            # Each holds the logits of a picture, so the devices must not run far ahead.
            while len(resizing) > THREADS:
                yield resizing.popleft().result()

        for index in counted(range(count), "computing", "pictures", count):
            pixels = pixels_of(records[index])
            picture = Size(*pixels.shape[:2])
            corners = windows.places(picture)
            canvas = Canvas(windows.size(picture), len(corners))
            open_pictures.append((canvas, picture))
            for corner, part in zip(corners, windows.cut(pixels), strict=True):
                batch.append(_Window(canvas, corner, part))
                if len(batch) == size:
                    compute(batch)
                    batch = []
            yield from finish()
        if batch:
            compute(batch)
        yield from finish()
        while resizing:
            yield resizing.popleft().result()
