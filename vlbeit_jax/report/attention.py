"""Which patches the CLS token of the last block attends to, drawn over pictures."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import cv2
import jax.numpy as jnp
import numpy as np

from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.data.examples.images import pixels_of
from vlbeit_jax.data.examples.labelled import as_text
from vlbeit_jax.data.image import squashed_view
from vlbeit_jax.data.records import Records
from vlbeit_jax.data.text import TextTokenizer
from vlbeit_jax.models.attended import cls_attention, sees_images_alone
from vlbeit_jax.models.backbone import Inputs
from vlbeit_jax.report import panels
from vlbeit_jax.report.examples import attention_cards
from vlbeit_jax.report.markup import Section, note
from vlbeit_jax.report.markup import words as paragraph
from vlbeit_jax.report.samples import spread
from vlbeit_jax.shapes import Float, UInt8

PICTURES = 6
STRENGTH = 0.6  # Of the colours over the picture.
TOLD = (
    "CLS is the token that stands for the whole image. The colours show how the last block divides "
    "its attention over the patches, as the mean of all heads: yellow is the most of the picture, "
    "dark the least. Attention says from where the token takes its content, not why the model "
    "answers what it answers."
)
OF_PRETRAINING = (
    "No loss of pretraining looks at this token, so its attention is a by-product until you "
    "fine-tune the model."
)


class Attended(NamedTuple):
    """Pictures with the attention of CLS.

    Attributes:
      images: as the network sees them.
      weights: of each patch, the mean of all heads; what is missing from 1 goes to other tokens.
    """

    images: UInt8[np.ndarray, "B side side 3"]
    weights: Float[np.ndarray, "B grid grid"]


def attended(
    config: ModelConfig,
    params: Mapping[str, Any],
    records: Records,
    text: Callable[[], tuple[TextTokenizer, int]] | None,
) -> Attended | None:
    """Returns pictures with attention; None if the network has no such block or input.

    A network that knows pictures only together with texts sees the record's question, or its first
    caption, as well.

    Args:
      config: of the network.
      params: of the network.
      records: with images.
      text: opens the tokenizer, and says how many word pieces a row has; None: there is none.
    """
    if config.depth < 2 or not len(records):
        return None
    rows = [records[index] for index in range(len(records))]
    images = np.stack([squashed_view(pixels_of(row), config.image_size) for row in rows])
    inputs = {"image": jnp.asarray(images)}
    if not sees_images_alone(config, params):
        if text is None or not {"text", "captions"} & rows[0].keys():
            return None
        tokenizer, length = text()
        written = [row["text"] if "text" in row else row["captions"][0] for row in rows]
        texts = np.stack([tokenizer.encode_row(as_text(each), length) for each in written])
        inputs["text"] = jnp.asarray(texts)
    weights = np.asarray(cls_attention(config, params, Inputs(**inputs)))
    patches = weights.mean(axis=1)[:, 1 : 1 + config.grid**2]
    return Attended(images, patches.reshape(-1, config.grid, config.grid))


def overlay(
    image: UInt8[np.ndarray, "side side 3"], weights: Float[np.ndarray, "grid grid"]
) -> UInt8[np.ndarray, "side side 3"]:
    """Returns a picture under the colours of its attention, each patch in one colour."""
    size = image.shape[1::-1]
    share = (weights - weights.min()) / max(float(np.ptp(weights)), 1e-12)
    grey = (255 * share).astype(np.uint8)
    large = cv2.resize(grey, size, interpolation=cv2.INTER_NEAREST)
    colours = cv2.applyColorMap(large, cv2.COLORMAP_VIRIDIS)[..., ::-1]
    return (STRENGTH * colours + (1 - STRENGTH) * image).astype(np.uint8)


def attention_sections(
    config: ModelConfig,
    params: Mapping[str, Any],
    records: Records,
    text: Callable[[], tuple[TextTokenizer, int]] | None,
    out: pathlib.Path,
    *,
    pretraining: bool = False,
) -> list[Section]:
    """Returns the section of the page, and writes ``attention.png`` beside it; none without it.

    Args:
      config: of the network.
      params: of the network.
      records: held out, with images.
      text: as in ``attended``.
      out: folder of the page.
      pretraining: whether the run was one of pretraining.
    """
    attention = attended(config, params, spread(records, PICTURES), text)
    if attention is None:
        return []
    drawn = np.stack([overlay(*each) for each in zip(*attention, strict=True)])
    shares = attention.weights.sum(axis=(1, 2))
    below = [f"{share:.0%} to patches" for share in shares]
    rows = {"picture": attention.images, "attention of CLS": drawn}
    (out / "attention.png").write_bytes(panels.grid(rows, below))
    body = [paragraph(TOLD), *([note(OF_PRETRAINING)] if pretraining else [])]
    return [
        Section("Where the model looks", [*body, attention_cards(attention.images, drawn, shares)])
    ]
