"""A network that judges whether a statement is true of two images together."""

import flax.linen as nn
import jax.numpy as jnp

from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.models.backbone import Backbone, Inputs
from vlbeit_jax.models.heads.reasoning import TruthHead
from vlbeit_jax.models.layers import matmul_dtype
from vlbeit_jax.shapes import Array, Float
from vlbeit_jax.types import Modality

IMAGES = 2


class Reasoner(nn.Module):
    """Two images and a statement to the logits of false and true (BEiT-3, VLMo; NLVR2).

    Each image forms a pair with the statement. Both pairs pass through the backbone as rows of one
    batch, with the same weights, and the head reads the states of all four CLS: of the first image,
    of its statement, of the second image, of its statement (BEiT-3).

    As in VLMo, the second image has a type embedding of its own, so that the encoder knows which
    image it sees. It starts as a copy of the first image's, where the start has none
    (``tasks.visual_reasoning``). BEiT-3 has no types; there the order of the states alone tells.

    Attributes:
      config: of the backbone.
    """

    config: ModelConfig

    def setup(self):
        """Creates the parts; the parameters of a part exist once it has been called."""
        self.backbone = Backbone(self.config)
        nn.share_scope(self, self.backbone)
        self.head = TruthHead(matmul_dtype(self.config.matmul))

    def __call__(
        self, inputs: Inputs, drop_path: Float[Array, "B 2 Z 2"] | None = None
    ) -> Float[Array, "B 2"]:
        """Returns logits (float32) of false and true.

        Args:
          inputs: both images and the statements.
          drop_path: uniform draws in [0, 1) per row, image and block; None in evaluation.
        """
        first, second, text = inputs.image, inputs.second_image, inputs.text
        assert first is not None and second is not None and text is not None
        # The pairs of a row follow each other, so that rows stay on their devices.
        images = jnp.stack([first, second], axis=1)
        pairs = Inputs(
            image=images.reshape(-1, *images.shape[2:]),
            text=jnp.repeat(text, IMAGES, axis=0),
        )
        rows = len(text)
        is_second = jnp.tile(jnp.arange(IMAGES) == 1, rows)
        if drop_path is not None:
            drop_path = drop_path.reshape(rows * IMAGES, *drop_path.shape[2:])
        tokens = self.backbone(pairs, drop_path=drop_path, is_second=is_second).tokens
        states = jnp.stack([tokens.segment(modality)[:, 0] for modality in Modality], axis=1)
        return self.head(states.reshape(rows, -1))

    def init_all(self) -> None:
        """Creates every parameter."""
        side = self.config.image_size
        image, text = jnp.zeros((1, side, side, 3), jnp.uint8), jnp.ones((1, 3), jnp.int32)
        self(Inputs(image=image, second_image=image, text=text))
