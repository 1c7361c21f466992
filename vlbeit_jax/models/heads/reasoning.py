"""BEiT-3's head for visual reasoning, on the states of two image-text pairs (arXiv 2208.10442).

Tests compare it with ``BEiT3ForVisualReasoning`` of BEiT-3's published code.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlbeit_jax.models.heads.vqa import EPS
from vlbeit_jax.models.layers import LayerNorm, Linear, beit_init
from vlbeit_jax.ops.gelu import gelu
from vlbeit_jax.shapes import Array, Float

FIRST_SCALE = 0.001  # Of both kernels, so that both truth values are equally likely at the start.
TRUTHS = 2  # False, true.


class TruthHead(nn.Module):
    """Norm, linear map to half the width, norm, GELU, linear map to the logits of false and true.

    Attributes:
      dtype: of the products.
    """

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, states: Float[Array, "B F"]) -> Float[Array, "B 2"]:
        """Returns logits, float32.

        Args:
          states: the four CLS states of both pairs, one after the other.
        """
        normed = LayerNorm(self.dtype, EPS, name="first_norm")(states)
        width = states.shape[-1] // 2
        hidden = Linear(width, ("embed", "ffn"), self.dtype, _small_init, name="hidden")(normed)
        hidden = gelu(LayerNorm(self.dtype, EPS, "ffn", name="norm")(hidden))
        out = Linear(TRUTHS, ("ffn", None), self.dtype, _small_init, exact=True, name="truth")
        return out(hidden)


def _small_init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
    return FIRST_SCALE * beit_init()(key, shape, dtype)
