"""Fills masks: missing word pieces, hidden patches."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from vlbeit_jax.api.base import Opened
from vlbeit_jax.api.masked import (
    MASK_GREY,
    MaskedViews,
    filled,
    hidden_patches,
    masked_row,
    predicted_tokens,
)
from vlbeit_jax.api.pictures import views
from vlbeit_jax.errors import UsageError
from vlbeit_jax.shapes import UInt8
from vlbeit_jax.tasks.visual_tokens import pictures_of


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
          UsageError: there is no mask, the text is too long, or the model has no head for words.
        """
        self._require("language_head", "masked words")
        tokenizer = self._tokenizer()
        pixels = None
        if image is not None:
            pixels = views([image], self.config.image_size, view)
        row, positions = masked_row(text, tokenizer, self.config.text_positions)
        found = filled(self._network, self._params, row, positions, pixels)
        best = np.argsort(-found, axis=1)[:, :top]
        return [
            [(tokenizer.piece(piece), float(shares[piece])) for piece in pieces]
            for shares, pieces in zip(found, best, strict=True)
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
    ) -> MaskedViews:
        """Returns a picture, what was hidden of it and what was predicted; see ``reconstruct``."""
        if self._visual is None:
            raise UsageError(f"{self.folder} has no visual tokenizer, so it cannot draw pictures")
        self._require("vision_head", "masked patches")
        side, patch, grid = self.config.image_size, self.config.patch_size, self.config.grid
        pixels = views([image], side, view)
        masked = hidden_patches(grid, hidden, seed)
        codes, guessed = predicted_tokens(
            self._network,
            self._visual.tokenizer,
            self._params,
            self._visual.frozen,
            jnp.asarray(pixels),
            jnp.asarray(masked[None]),
        )
        through, predicted = (
            _enlarged(pictures_of(self._visual, tokens)[0], side) for tokens in (codes, guessed)
        )
        grey = np.zeros(grid**2, bool)
        grey[masked] = True
        grey = grey.reshape(grid, grid).repeat(patch, axis=0).repeat(patch, axis=1)[..., None]
        right = np.asarray(guessed == codes)[0, masked]
        hidden_view = np.where(grey, MASK_GREY, pixels[0]).astype(np.uint8)
        return MaskedViews(pixels[0], hidden_view, through, predicted, float(right.mean()))


def _enlarged(picture: np.ndarray, side: int) -> UInt8[np.ndarray, "side side 3"]:
    """A visual tokenizer may see a smaller picture than the model."""
    larger = side // len(picture)
    return picture.repeat(larger, axis=0).repeat(larger, axis=1)
