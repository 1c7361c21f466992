"""Pictures with hidden patches, drawn from the visual tokens that a network predicts of them."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vlbeit_jax.models.backbone import Inputs
from vlbeit_jax.models.visual_tokenizer import Tokenizer, encode
from vlbeit_jax.models.vlbeit import VLBEiT
from vlbeit_jax.ops.gather import is_at_positions
from vlbeit_jax.shapes import Array, Float, Int, Tree, UInt8
from vlbeit_jax.tasks.visual_tokens import VisualTokens, pictures_of, require_drawing
from vlbeit_jax.types import Modality

MASK_GREY = 127


class MaskedPictures(NamedTuple):
    """What was hidden of some pictures, and what a network makes of them; or the same of one.

    Attributes:
      original: as the network sees them.
      masked: with hidden patches in grey.
      through_tokens: decoded from the true visual tokens, the best that can be reached.
      predicted: decoded from the tokens of the visible patches and the predicted tokens of the
        hidden patches.
      accuracy: share of the hidden patches whose token was predicted.
    """

    original: UInt8[np.ndarray, "*n height width 3"]
    masked: UInt8[np.ndarray, "*n height width 3"]
    through_tokens: UInt8[np.ndarray, "*n height width 3"]
    predicted: UInt8[np.ndarray, "*n height width 3"]
    accuracy: Float[np.ndarray, "*n"]


def masked_pictures(
    network: VLBEiT,
    params: Tree,
    visual: VisualTokens,
    image: UInt8[np.ndarray, "B height width 3"],
    masked_patches: Int[np.ndarray, "B M"],
    text: Int[np.ndarray, "B T"] | None = None,
) -> MaskedPictures:
    """Returns pictures before and after some of their patches were hidden and predicted.

    Args:
      network: predicts visual tokens.
      params: of the network.
      visual: the tokenizer, whose decoder draws.
      image: pixels.
      masked_patches: numbers of the hidden patches, at least one.
      text: rows of word pieces that the network sees beside the pictures; None: pictures alone.

    Raises:
      UsageError: the tokenizer's decoder predicts no pixels.
    """
    require_drawing(visual)  # Before anything is compiled.
    codes, guessed = _tokens(
        network, visual.tokenizer, params, visual.frozen, image, masked_patches, text
    )
    hidden = np.asarray(is_at_positions(jnp.asarray(masked_patches), codes.shape[1]))
    grid, patch = network.config.grid, network.config.patch_size
    grey = hidden.reshape(-1, grid, grid).repeat(patch, axis=1).repeat(patch, axis=2)[..., None]
    right = (np.asarray(guessed == codes) & hidden).sum(axis=1) / hidden.sum(axis=1)
    side = network.config.image_size
    return MaskedPictures(
        original=np.asarray(image),
        masked=np.where(grey, MASK_GREY, image).astype(np.uint8),
        through_tokens=_enlarged(pictures_of(visual, codes), side),
        predicted=_enlarged(pictures_of(visual, guessed), side),
        accuracy=right,
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _tokens(
    network: VLBEiT,
    tokenizer: Tokenizer,
    params: Tree,
    frozen: Tree,
    image: Array,
    masked: Array,
    text: Array | None,
) -> tuple[Array, Array]:
    """Returns all visual tokens of images, and the same with predictions at masked patches."""
    codes = encode(tokenizer, frozen, image)
    inputs = Inputs(image=image, masked_patches=masked, text=text)
    logits: Any = network.apply({"params": params}, inputs, method="logits")
    best = jnp.argmax(logits[Modality.VISION], axis=-1)
    return codes, codes.at[jnp.arange(len(codes))[:, None], masked].set(best)


def _enlarged(pictures: np.ndarray, side: int) -> UInt8[np.ndarray, "B side side 3"]:
    """Returns pictures at the network's size; those of a visual tokenizer may be smaller."""
    larger = side // pictures.shape[1]
    return pictures.repeat(larger, axis=1).repeat(larger, axis=2)
