"""BEiT-3's head for question answering, on states before the final norm (arXiv 2208.10442).

Tests compare it with ``BEiT3ForVisualQuestionAnswering`` of BEiT-3's published code.
"""

import flax.linen as nn
import jax.numpy as jnp

from vlbeit_jax.models.layers import LayerNorm, Linear
from vlbeit_jax.ops.gelu import gelu
from vlbeit_jax.shapes import Array, Float

EPS = 1e-5  # Of every norm in BEiT-3's heads.


class Pooler(nn.Module):
    """One state to one vector: norm, linear map, tanh.

    Attributes:
      dtype: of the product.
    """

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, state: Float[Array, "B D"]) -> Float[Array, "B D"]:
        """Returns values in [-1, 1], float32."""
        normed = LayerNorm(self.dtype, EPS, name="norm")(state)
        dense = Linear(state.shape[-1], ("embed", None), self.dtype, exact=True, name="dense")
        return jnp.tanh(dense(normed))


class AnswerHead(nn.Module):
    """A vector to logits of answers, by a hidden layer twice as wide.

    Attributes:
      answers: classes.
      dtype: of the products.
    """

    answers: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, pooled: Float[Array, "B D"]) -> Float[Array, "B C"]:
        """Returns logits, float32."""
        width = 2 * pooled.shape[-1]
        hidden = Linear(width, ("embed", "ffn"), self.dtype, name="hidden")(pooled)
        hidden = gelu(LayerNorm(self.dtype, EPS, "ffn", name="norm")(hidden))
        return Linear(self.answers, ("ffn", None), self.dtype, exact=True, name="answers")(hidden)
