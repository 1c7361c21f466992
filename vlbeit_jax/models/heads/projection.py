"""Heads of retrieval: into the space where images and texts are compared, and for matching.

The projections and the scale are those of BEiT-3's ``BEiT3ForRetrieval`` (arXiv 2208.10442). Tests
compare the two.
"""

import math

import flax.linen as nn
import jax.numpy as jnp

from vlbeit_jax.models.layers import Linear
from vlbeit_jax.models.params import declare
from vlbeit_jax.ops.quantize import l2_normalise
from vlbeit_jax.shapes import Array, Float

TEMPERATURE = 0.07  # At the start of training (CLIP, arXiv 2103.00020).


class RetrievalHead(nn.Module):
    """Projections of both modalities, the learned scale, and a head for pairs.

    Attributes:
      features: length of the vectors.
      matching: whether there is a head for pairs.
      dtype: of the products' operands.
    """

    features: int
    matching: bool
    dtype: jnp.dtype

    def setup(self):
        """Creates the parts."""
        axes = ("embed", None)
        self.image = Linear(self.features, axes, self.dtype, exact=True, bias=False)
        self.text = Linear(self.features, axes, self.dtype, exact=True, bias=False)
        self.logit_scale = self.param(
            "logit_scale", declare(nn.initializers.constant(math.log(1 / TEMPERATURE))), ()
        )
        if self.matching:
            self.match = Linear(2, axes, self.dtype, exact=True)

    def project_image(self, state: Float[Array, "B D"]) -> Float[Array, "B E"]:
        """Returns unit vectors (float32) of images."""
        return l2_normalise(self.image(state))

    def project_text(self, state: Float[Array, "B D"]) -> Float[Array, "B E"]:
        """Returns unit vectors (float32) of texts."""
        return l2_normalise(self.text(state))

    def match_pair(
        self, image: Float[Array, "B D"], text: Float[Array, "B D"]
    ) -> Float[Array, "B 2"]:
        """Returns logits (float32) of "no" and "yes" from both CLS states of a fused sequence.

        Linear, as in ALBEF and VLMo. Like BEiT-3's head for visual reasoning it reads both states.
        """
        return self.match(jnp.concatenate([image, text], axis=-1))
