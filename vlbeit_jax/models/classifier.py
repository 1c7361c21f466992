"""A network that classifies images or texts: the backbone without its final norm, and a head."""

import flax.linen as nn
import jax.numpy as jnp

from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.models.backbone import Backbone, Inputs
from vlbeit_jax.models.heads.pooled import PooledHead, pooled_state
from vlbeit_jax.models.layers import matmul_dtype
from vlbeit_jax.shapes import Array, Float
from vlbeit_jax.types import Modality


class Classifier(nn.Module):
    """Logits of classes. It has the experts and the embedding of one modality only.

    Attributes:
      config: of the backbone.
      classes: number of them.
      modality: of the inputs.
      pool: see ``models.heads.pooled``.
    """

    config: ModelConfig
    classes: int
    modality: Modality
    pool: str

    def setup(self):
        """Creates the parts; the parameters of a part exist once it has been called."""
        self.backbone = Backbone(self.config, final_norm=False)
        nn.share_scope(self, self.backbone)
        dtype = matmul_dtype(self.config.matmul)
        self.head = PooledHead(self.classes, dtype, self.config.norm_eps)

    def __call__(
        self, inputs: Inputs, drop_path: Float[Array, "B Z 2"] | None = None
    ) -> Float[Array, "B C"]:
        """Returns logits, float32.

        Args:
          inputs: images or texts.
          drop_path: as in ``Backbone``.
        """
        tokens = self.backbone(inputs, drop_path=drop_path).tokens
        return self.head(pooled_state(tokens, self.modality, self.pool))

    def init_all(self) -> None:
        """Creates every parameter."""
        side = self.config.image_size
        if self.modality is Modality.VISION:
            self(Inputs(image=jnp.zeros((1, side, side, 3), jnp.uint8)))
        else:
            self(Inputs(text=jnp.ones((1, 3), jnp.int32)))
