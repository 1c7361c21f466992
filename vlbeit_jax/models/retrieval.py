"""A network that compares images with texts: apart, and as a pair."""

import flax.linen as nn
import jax.numpy as jnp

from vlbeit_jax.config.networks import ModelConfig
from vlbeit_jax.models.backbone import Backbone, Inputs
from vlbeit_jax.models.heads.projection import RetrievalHead
from vlbeit_jax.models.layers import matmul_dtype
from vlbeit_jax.shapes import Array, Float
from vlbeit_jax.types import Modality

DropPath = Float[Array, "B Z 2"] | None  # Uniform draws, as in ``Backbone``.


class DualEncoder(nn.Module):
    """Images and texts to unit vectors of one space; optionally, pairs to matching logits.

    An image and a text pass through the same backbone one at a time, by the experts of their
    modality (BEiT-3, VLMo). With matching, a pair also passes through it in one sequence.

    Attributes:
      config: of the backbone.
      features: length of the vectors.
      matching: whether there is a head for pairs.
    """

    config: ModelConfig
    features: int
    matching: bool = False

    def setup(self):
        """Creates the parts; the parameters of a part exist once it has been called."""
        self.backbone = Backbone(self.config)
        nn.share_scope(self, self.backbone)
        dtype = matmul_dtype(self.config.matmul)
        self.head = RetrievalHead(self.features, self.matching, dtype)

    def embed_image(self, inputs: Inputs, drop_path: DropPath = None) -> Float[Array, "B E"]:
        """Returns unit vectors (float32) of images; ``inputs`` holds no texts."""
        return self.head.project_image(self._cls(inputs, Modality.VISION, drop_path))

    def embed_text(self, inputs: Inputs, drop_path: DropPath = None) -> Float[Array, "B E"]:
        """Returns unit vectors (float32) of texts; ``inputs`` holds no images."""
        return self.head.project_text(self._cls(inputs, Modality.LANGUAGE, drop_path))

    def match(self, inputs: Inputs, drop_path: DropPath = None) -> Float[Array, "B 2"]:
        """Returns logits (float32) of whether image and text belong together: no, yes."""
        tokens = self.backbone(inputs, drop_path=drop_path).tokens
        image, text = (tokens.segment(modality)[:, 0] for modality in Modality)
        return self.head.match_pair(image, text)

    def init_all(self) -> None:
        """Creates every parameter."""
        side = self.config.image_size
        image, text = jnp.zeros((1, side, side, 3), jnp.uint8), jnp.ones((1, 3), jnp.int32)
        self.embed_image(Inputs(image=image))
        self.embed_text(Inputs(text=text))
        if self.matching:
            self.match(Inputs(image=image, text=text))

    def _cls(self, inputs: Inputs, modality: Modality, drop_path: DropPath) -> Float[Array, "B D"]:
        return self.backbone(inputs, drop_path=drop_path).tokens.segment(modality)[:, 0]
