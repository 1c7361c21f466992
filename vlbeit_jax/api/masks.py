"""Fills masks: missing word pieces, hidden patches."""

from typing import Any

import numpy as np

from vlbeit_jax.api.base import Opened, checked_top
from vlbeit_jax.api.masked import (
    filled,
    hidden_patches,
    masked_row,
)
from vlbeit_jax.api.pictures import views
from vlbeit_jax.errors import UsageError
from vlbeit_jax.shapes import UInt8
from vlbeit_jax.tasks.masked_pictures import MaskedPictures, masked_pictures


class FillsMasks(Opened):
    """Predicts what is hidden, as in pretraining."""

    def fill_mask(
        self, text: str, image: Any = None, *, top: int = 5, view: str = "squash"
    ) -> list[list[tuple[str, float]]]:
        """Returns the likeliest word pieces at each mask of a text, with their probabilities.

        Args:
          text: with "<mask>" where one word piece is missing.
          image: that the text belongs to; None: the text alone.
          top: word pieces to list for each mask.
          view: as in ``encode``.

        Raises:
          UsageError: there is no mask, the text is too long, the model has no head for words, or
            ``top`` is not a whole number from 1.
        """
        top = checked_top(top)
        self._require("language_head", "masked words")
        tokenizer = self._tokenizer()
        pixels = None
        if image is not None:
            pixels = views([image], self.config.image_size, view)
        row, positions = masked_row(text, tokenizer, self.config.text_positions)
        probabilities = filled(self._network, self._params, row, positions, pixels)
        best = np.argsort(-probabilities, axis=1)[:, :top]
        return [
            [(tokenizer.piece(piece), float(shares[piece])) for piece in pieces]
            for shares, pieces in zip(probabilities, best, strict=True)
        ]

    def reconstruct(
        self, image: Any, hidden: float = 0.4, *, seed: int = 0, view: str = "squash"
    ) -> UInt8[np.ndarray, "side side 3"]:
        """Returns a picture after a share of its patches was hidden and predicted.

        Its patches are drawn from visual tokens. ``masked_views`` also returns what was hidden.

        Args:
          image: as in ``encode``.
          hidden: share of the patches, hidden in blocks as in pretraining.
          seed: chooses them.
          view: as in ``encode``.

        Raises:
          UsageError: the visual tokenizer's decoder predicts no pixels, or there is none.
        """
        return self.masked_views(image, hidden, seed=seed, view=view).predicted

    def masked_views(
        self, image: Any, hidden: float = 0.4, *, seed: int = 0, view: str = "squash"
    ) -> MaskedPictures:
        """Returns a picture, what was hidden of it and what was predicted; see ``reconstruct``."""
        if self._visual is None:
            raise UsageError(f"{self.folder} has no visual tokenizer, so it cannot draw pictures")
        self._require("vision_head", "masked patches")
        pixels = views([image], self.config.image_size, view)
        masked = hidden_patches(self.config.grid, hidden, seed)[None]
        drawn = masked_pictures(self._network, self._params, self._visual, pixels, masked)
        return MaskedPictures(*(each[0] for each in drawn))
