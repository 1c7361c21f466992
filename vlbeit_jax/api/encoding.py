"""Encodes: states of images, texts and pairs."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from vlbeit_jax.api.base import Opened
from vlbeit_jax.api.pictures import listed, views
from vlbeit_jax.api.states import Encoded, encoded
from vlbeit_jax.errors import UsageError
from vlbeit_jax.shapes import Int, UInt8


class Encodes(Opened):
    """Gives states of images and texts."""

    def encode(
        self,
        images: Any = None,
        texts: Any = None,
        *,
        blocks: Sequence[int] = (),
        view: str = "squash",
    ) -> Encoded:
        """Returns states of images and of texts, each seen alone.

        Any number of them is taken; at most three programs are compiled for images, and three for
        texts. Texts longer than the model's are cut.

        Args:
          images: one or several of: a path, a PIL image, an array uint8 [height, width, 3].
          texts: one string or several.
          blocks: numbers of blocks, from 0, whose states are returned in ``blocks`` as well.
          view: "squash": the network sees the whole image as a square. "crop": its centre.

        Raises:
          UsageError: an image cannot be read, a text is empty, there are neither, or the model
            does not know them.
        """
        if images is None and texts is None:
            raise UsageError("encode needs images=..., texts=..., or both")
        parts = []
        if images is not None:
            self._require("vision_embed", "images")
            pixels = views(listed(images, "images"), self.config.image_size, view)
            parts.append(self._encoded(pixels, None, blocks))
        if texts is not None:
            self._require("text_embed", "texts")
            parts.append(self._encoded(None, self._rows(listed(texts, "texts")), blocks))
        return functools.reduce(_merged, parts)

    def encode_pairs(
        self, images: Any, texts: Any, *, blocks: Sequence[int] = (), view: str = "squash"
    ) -> Encoded:
        """Returns states of images and texts that see each other: the first with the first, ...

        Arguments and errors are those of ``encode``.
        """
        images, texts = listed(images, "images"), listed(texts, "texts")
        if len(images) != len(texts):
            raise UsageError(
                f"{len(images)} images and {len(texts)} texts make no pairs: give as many of each"
            )
        for name, what in (("vision_embed", "images"), ("text_embed", "texts")):
            self._require(name, what)
        pixels = views(images, self.config.image_size, view)
        return self._encoded(pixels, self._rows(texts), blocks)

    def _encoded(
        self,
        image: UInt8[np.ndarray, "B side side 3"] | None,
        text: Int[np.ndarray, "A L"] | None,
        blocks: Sequence[int],
    ) -> Encoded:
        depth = self.config.depth
        given = list(blocks) if isinstance(blocks, Iterable) else None
        if given is None or not all(isinstance(each, int | np.integer) for each in given):
            raise UsageError(f"blocks={blocks!r}: give a list of numbers, such as blocks=[0]")
        if any(not 0 <= each < depth for each in given):
            raise UsageError(f"blocks={given}: the model has blocks 0 to {depth - 1}")
        wanted = sorted(set(given))
        states = encoded(self.config, self._params, image, text, wanted)
        if text is None:
            return states
        tokenizer = self._tokenizer()
        pieces = [[tokenizer.piece(each) for each in row if each] for row in text]
        layers = {
            number: dataclasses.replace(x, pieces=pieces) for number, x in states.blocks.items()
        }
        return dataclasses.replace(states, pieces=pieces, blocks=layers)


def _merged(one: Encoded, other: Encoded) -> Encoded:
    """Joins states of images with states of texts."""
    own = {
        field.name: getattr(other, field.name)
        for field in dataclasses.fields(other)
        if field.name != "blocks" and getattr(other, field.name) is not None
    }
    blocks = {number: _merged(one.blocks[number], x) for number, x in other.blocks.items()}
    return dataclasses.replace(one, **own, blocks=blocks)
