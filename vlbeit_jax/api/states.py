"""States of images and texts under fixed parameters."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from vlbeit_jax.api.batches import in_batches
from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.models.backbone import Backbone, Inputs
from vlbeit_jax.models.heads.pooled import pooled_state
from vlbeit_jax.shapes import Bool, Float, Int, Tree
from vlbeit_jax.types import Modality, Special


@dataclasses.dataclass(frozen=True)
class Encoded:
    """States of images, of texts, or of both; what there is none of is None.

    B images have N patches each, row by row; A texts have L tokens each: CLS, word pieces, SEP,
    padding. A state has D numbers, after the final norm, if the model has one. All arrays are
    float32 but ``is_word``.

    Attributes:
      image: mean state of each image's patches.
      image_cls: state of each image's CLS token, at which no loss of pretraining looks.
      patches: of each image.
      text: mean state of each text's word pieces and SEP.
      text_cls: state of each text's CLS token, at which no loss of pretraining looks.
      words: of each text's tokens; those of padding mean nothing.
      is_word: True at word pieces: not at CLS, SEP and padding.
      pieces: the tokens of each text, without padding. A leading underscore marks the start of a
        word.
      blocks: the same after some blocks, by the block's number from 0, without the final norm.
    """

    image: Float[np.ndarray, "B D"] | None = None
    image_cls: Float[np.ndarray, "B D"] | None = None
    patches: Float[np.ndarray, "B N D"] | None = None
    text: Float[np.ndarray, "A D"] | None = None
    text_cls: Float[np.ndarray, "A D"] | None = None
    words: Float[np.ndarray, "A L D"] | None = None
    is_word: Bool[np.ndarray, "A L"] | None = None
    pieces: Sequence[Sequence[str]] | None = None
    blocks: Mapping[int, "Encoded"] = dataclasses.field(default_factory=dict)


def encoded(
    model: ModelConfig,
    params: Tree,
    image: np.ndarray | None,
    text: Int[np.ndarray, "A L"] | None,
    blocks: Sequence[int],
) -> Encoded:
    """Returns states of images, of texts, or of pairs if both are given.

    Args:
      model: sizes of the network.
      params: on a device; those of heads are not used.
      image: pixels of each row.
      text: word pieces of each row.
      blocks: whose states are returned as well.
    """
    # Heads of fine-tuned models bring their own norm, and the network then has none.
    final_norm = any("norm" in name for name in params["encoder"])
    compute = functools.partial(_states, _backbone(model, final_norm), tuple(blocks), params)
    rows = {name: value for name, value in (("image", image), ("text", text)) if value is not None}
    layers = in_batches(compute, rows)
    last, *kept = (_of_layer(states, text) for states in layers)
    return dataclasses.replace(last, blocks=dict(zip(blocks, kept, strict=True)))


@functools.cache
def _backbone(model: ModelConfig, final_norm: bool) -> Backbone:
    return Backbone(dataclasses.replace(model, drop_path=0.0), final_norm)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _states(
    backbone: Backbone, blocks: tuple[int, ...], params: Tree, rows: Mapping[str, jax.Array]
) -> list[dict[str, jax.Array]]:
    """Returns the states after the last block, and after each of ``blocks``."""
    output: Any = backbone.apply({"params": params}, Inputs(**rows), keep=blocks)
    layers = [output.tokens, *(dataclasses.replace(output.tokens, x=x) for x in output.kept)]
    states = []
    for tokens in layers:
        of_layer = {}
        for modality, _ in tokens.layout:
            own = tokens.alone(modality)
            of_layer[modality.value] = own.x
            of_layer[f"{modality.value}_mean"] = pooled_state(own, modality, "mean")
        states.append(of_layer)
    return states


def _of_layer(states: Mapping[str, np.ndarray], text: np.ndarray | None) -> Encoded:
    fields: dict[str, Any] = {}
    if Modality.VISION.value in states:
        tokens = states[Modality.VISION.value]
        fields |= {
            "image": states["vision_mean"],
            "image_cls": tokens[:, 0],
            "patches": tokens[:, 1:],
        }
    if text is not None:
        tokens = states[Modality.LANGUAGE.value]
        special = (Special.PAD, Special.CLS, Special.SEP)
        fields |= {
            "text": states["language_mean"],
            "text_cls": tokens[:, 0],
            "words": tokens,
            "is_word": ~np.isin(text, special),
        }
    return Encoded(**fields)
