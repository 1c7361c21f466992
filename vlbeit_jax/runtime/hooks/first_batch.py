"""Draws the first batch of each stream, so that a mistake in the data shows before step 1."""

import pathlib
from collections.abc import Mapping

import numpy as np

from vlbeit_jax.data.pipeline import Examples
from vlbeit_jax.places import appearing
from vlbeit_jax.runtime.bad_data import explains_records
from vlbeit_jax.runtime.hooks.base import Hook
from vlbeit_jax.runtime.sheet import png, sheet
from vlbeit_jax.runtime.writer import Writer
from vlbeit_jax.tasks.reading import Reading, read_rows


class FirstBatch(Hook):
    """Writes ``first_batch_STREAM.png`` into a new run's folder, and into TensorBoard.

    It computes the rows itself: an example is a function of its number. So the batches of the loop
    and their order stay as they are.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        writer: Writer,
        examples: Mapping[str, Examples],
        readings: Mapping[str, Reading],
        rows: Mapping[str, int],
    ):
        """Takes what is drawn.

        Args:
          folder: of the run.
          writer: of the run.
          examples: of each stream, as the loop reads them.
          readings: how the rows of each stream are read.
          rows: how many of each stream are drawn.
        """
        self._folder, self._writer = folder, writer
        self._examples, self._readings, self._rows = examples, readings, rows
        self._drawn = False

    def before_step(self, index: int) -> None:
        """Draws once, before step 1; a resumed run keeps the pictures of its start."""
        if index == 0 and not self._drawn:
            for stream, examples in self._examples.items():
                self._draw(stream, examples)
        self._drawn = True

    def _draw(self, stream: str, examples: Examples) -> None:
        with explains_records(stream, 1):
            rows = [examples[number] for number in range(self._rows[stream])]
        batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        title = f"{stream}: the first {len(rows)} rows of step 1, as the network sees them"
        picture = sheet(title, read_rows(batch, self._readings[stream]))
        path = self._folder / f"first_batch_{stream}.png"
        with appearing(path, "wb") as out:
            out.write(png(picture))
        self._writer.picture(f"first_batch/{stream}", picture)
