"""A network that writes a caption of an image (BEiT-3)."""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.models.backbone import Backbone, Inputs
from vlbeit_jax.models.earlier import EARLIER
from vlbeit_jax.models.layers import matmul_dtype
from vlbeit_jax.models.tokens import Tokens
from vlbeit_jax.models.vocabulary import WordHead
from vlbeit_jax.ops.beam_search import Found, Search
from vlbeit_jax.ops.gather import gather_positions
from vlbeit_jax.ops.losses import Prediction
from vlbeit_jax.ops.position import relative_index
from vlbeit_jax.shapes import Array, Bool, Float, Int, Tree
from vlbeit_jax.types import Layout, Modality, Positions


def writing_mask(layout: Layout) -> Bool[np.ndarray, "L L"]:
    """Returns what each token sees: an image the image, a text the image and its earlier pieces."""
    kinds = np.repeat([kind for kind, _ in layout], [count for _, count in layout])
    is_image, place = kinds == Modality.VISION, np.arange(len(kinds))
    return is_image | (~is_image[:, None] & (place <= place[:, None]))


class Captioner(nn.Module):
    """Predicts the masked pieces of a caption from the image and from the pieces before.

    The backbone and the head of word pieces are those of pretraining.
    """

    config: ModelConfig

    def setup(self):
        """Creates the parts; the parameters of a part exist once it has been called."""
        self.backbone = Backbone(self.config)
        nn.share_scope(self, self.backbone)
        self.language_head = WordHead(self.config.vocabulary, matmul_dtype(self.config.matmul))

    def __call__(self, inputs: Inputs) -> Float[Array, "B T V"]:
        """Returns logits (float32) of the piece at each position, without padding; for inference.

        Args:
          inputs: images and captions. The piece at a masked position is predicted from the pieces
            before it, without itself.
        """
        return self.language_head.logits(self._states(inputs))[..., : self.config.vocabulary]

    def predict(
        self,
        inputs: Inputs,
        targets: Int[Array, "B M"],
        drop_path: Float[Array, "B Z 2"] | None = None,
        smoothing: float = 0.0,
    ) -> Prediction:
        """Returns loss and correctness at the masked positions.

        Args:
          inputs: images and captions with masked positions.
          targets: right pieces there.
          drop_path: as in ``Backbone``.
          smoothing: as in ``cross_entropy``.
        """
        assert inputs.text_masked is not None
        states = gather_positions(self._states(inputs, drop_path), inputs.text_masked)
        return self.language_head(states, targets, smoothing)

    def read(self, image: Array) -> None:
        """Reads images. The keys and values of each block are left in ``EARLIER``."""
        # A pair with no text yet: it goes through the experts that pairs go through.
        self.backbone(Inputs(image=image, text=jnp.zeros((len(image), 0), jnp.int32)))

    def next_logits(
        self, text: Int[Array, "B beams T"], position: Int[Array, ""]
    ) -> Float[Array, "B beams V"]:
        """Returns logits at one position of several texts about each image that was ``read``.

        All texts of an image stand in one sequence and do not see each other, so that they share
        the image's keys and values in memory.
        """
        rows, beams, length = text.shape
        tokens = self.backbone.text_embed(text.reshape(rows * beams, length))
        mask, relative = _continued(self.config, beams, length)
        pair = ((Modality.VISION, 0), (Modality.LANGUAGE, beams * length))
        assert tokens.valid is not None, "texts have padding"
        tokens = Tokens(
            tokens.x.reshape(rows, beams * length, -1),
            tokens.valid.reshape(rows, beams * length),
            pair,
            mask=jnp.asarray(mask),
        )
        states = self.backbone.encoder(tokens, relative=relative).tokens.x
        states = states.reshape(rows, beams, length, -1)
        chosen = jax.lax.dynamic_index_in_dim(states, position, axis=2, keepdims=False)
        return self.language_head.logits(chosen)

    def init_all(self) -> None:
        """Creates every parameter."""
        side = self.config.image_size
        image, text = jnp.zeros((1, side, side, 3), jnp.uint8), jnp.ones((1, 3), jnp.int32)
        self(Inputs(image=image, text=text))

    def _states(
        self, inputs: Inputs, drop_path: Float[Array, "B Z 2"] | None = None
    ) -> Float[Array, "B T D"]:
        encoded = self.backbone(inputs, drop_path=drop_path, attend=writing_mask)
        return encoded.tokens.segment(Modality.LANGUAGE)


def write_captions(config: ModelConfig, search: Search, params: Tree, image: Array) -> Found:
    """Returns the best caption of each image.

    Args:
      config: of a ``Captioner``.
      search: how captions are searched for.
      params: of the network.
      image: Uint8[B, height, width, 3].
    """
    # Kernels for attention keep neither keys nor values; loops over blocks pass no collection on.
    plain = dataclasses.replace(config, attention="einsum", remat="none", scan=False, drop_path=0.0)
    network = Captioner(plain)
    _, read = network.apply({"params": params}, image, method="read", mutable=[EARLIER])

    def predict(text: Array, position: Array) -> Array:
        variables: Any = {"params": params, **read}
        logits: Any = network.apply(variables, text, position, method="next_logits")
        return jax.nn.log_softmax(logits)

    return search(predict, len(image))


@functools.cache
def _continued(
    config: ModelConfig, beams: int, length: int
) -> tuple[Bool[np.ndarray, "L keys"], Int[np.ndarray, "L keys"] | None]:
    """Returns what the tokens of some texts see of an image and of each other, side by side.

    Returns:
      True where a query may see a key, and the row of the table of relative positions (None without
      one).
    """
    image = config.patches + 1
    layout = ((Modality.VISION, image), (Modality.LANGUAGE, length))
    queries = image + np.tile(np.arange(length), beams)
    keys = np.concatenate([np.arange(image), queries])
    of_beam = np.repeat(np.arange(beams), length)
    seen = np.concatenate([np.full(image, -1), of_beam])
    own = (seen == -1) | (seen == of_beam[:, None])
    at = np.ix_(queries, keys)
    relative = None
    if config.positions is Positions.RELATIVE:
        relative = relative_index(layout, config.grid, config.text_positions)[at]
    return own & writing_mask(layout)[at], relative
