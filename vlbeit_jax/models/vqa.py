"""A network that answers a question on an image."""

import flax.linen as nn
import jax.numpy as jnp

from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.models.backbone import Backbone, Inputs
from vlbeit_jax.models.heads.vqa import AnswerHead, Pooler
from vlbeit_jax.models.layers import matmul_dtype
from vlbeit_jax.shapes import Array, Float
from vlbeit_jax.types import Modality


class VQA(nn.Module):
    """Image and question together to logits of a fixed list of answers (BEiT-3).

    Attributes:
      config: of the backbone.
      answers: length of the list.
    """

    config: ModelConfig
    answers: int

    def setup(self):
        """Creates the parts; the parameters of a part exist once it has been called."""
        dtype = matmul_dtype(self.config.matmul)
        # The pooler brings its own norm.
        self.backbone = Backbone(self.config, final_norm=False)
        nn.share_scope(self, self.backbone)
        self.pooler = Pooler(dtype)
        self.head = AnswerHead(self.answers, dtype)

    def __call__(
        self, inputs: Inputs, drop_path: Float[Array, "B Z 2"] | None = None
    ) -> Float[Array, "B C"]:
        """Returns logits (float32) from the state of the image's CLS.

        Args:
          inputs: images and questions.
          drop_path: as in ``Backbone``.
        """
        tokens = self.backbone(inputs, drop_path=drop_path).tokens
        return self.head(self.pooler(tokens.segment(Modality.VISION)[:, 0]))

    def init_all(self) -> None:
        """Creates every parameter."""
        side = self.config.image_size
        image, text = jnp.zeros((1, side, side, 3), jnp.uint8), jnp.ones((1, 3), jnp.int32)
        self(Inputs(image=image, text=text))
