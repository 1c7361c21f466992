"""Images and texts as unit vectors of one space, for search."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from vlbeit_jax.api.batches import in_batches
from vlbeit_jax.models.backbone import Inputs
from vlbeit_jax.models.retrieval import DualEncoder
from vlbeit_jax.shapes import Float, Int, Tree, UInt8


class Embedded(NamedTuple):
    """Unit vectors; the product of an image's and a text's says how well they fit.

    Attributes:
      image: of each image; None if there are none.
      text: of each text; None if there are none.
    """

    image: Float[np.ndarray, "B E"] | None
    text: Float[np.ndarray, "A E"] | None


@dataclasses.dataclass(frozen=True)
class Retriever:
    """The network of a run that was fine-tuned for retrieval.

    Attributes:
      network: embeds images and texts.
      text_length: word pieces of a text, CLS and SEP included.
    """

    network: DualEncoder
    text_length: int

    def image(
        self, params: Tree, pixels: UInt8[np.ndarray, "B side side 3"]
    ) -> Float[np.ndarray, "B E"]:
        """Returns a vector for each image."""
        return in_batches(
            functools.partial(_embed, self.network, "image", params), {"image": pixels}
        )

    def text(self, params: Tree, rows: Int[np.ndarray, "A L"]) -> Float[np.ndarray, "A E"]:
        """Returns a vector for each row of word pieces."""
        embed = functools.partial(_embed, self.network, "text", params)
        return in_batches(embed, {"text": rows})


@functools.partial(jax.jit, static_argnums=(0, 1))
def _embed(
    network: DualEncoder, name: str, params: Tree, rows: Mapping[str, jax.Array]
) -> jax.Array:
    vectors: Any = network.apply({"params": params}, Inputs(**rows), method=f"embed_{name}")
    return vectors
