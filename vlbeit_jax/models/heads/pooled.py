"""Classes from the states of one modality, before the final norm."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vlbeit_jax.models.layers import LAYER_NORM_EPS, LayerNorm, Linear, beit_init
from vlbeit_jax.models.tokens import Tokens
from vlbeit_jax.shapes import Array, Bool, Float
from vlbeit_jax.types import Modality

FIRST_SCALE = 0.001  # Of the kernel, so that all classes are equally likely at the start (BEiT).


def pooled_state(tokens: Tokens, modality: Modality, pool: str) -> Float[Array, "B D"]:
    """Returns one state a row.

    Args:
      tokens: of one modality alone.
      modality: theirs.
      pool: "cls": the state of CLS. "mean": the mean of all other states that are no padding.
        "moments": the mean, then the standard deviation of the same states, twice as wide.
    """
    states = tokens.segment(modality)
    if pool == "cls":
        return states[:, 0]
    valid = None if tokens.valid is None else tokens.valid[:, 1:, None]
    others = states[:, 1:]
    mean = _mean(others, valid)
    if pool == "mean":
        return mean
    variance = _mean(jnp.square(others - mean[:, None]), valid)
    return jnp.concatenate([mean, jnp.sqrt(variance)], axis=-1)


def _mean(states: Float[Array, "B L D"], valid: Bool[Array, "B L 1"] | None) -> Array:
    if valid is None:
        return states.mean(axis=1)
    total = jnp.where(valid, states, 0).sum(axis=1)
    return total / jnp.maximum(valid.sum(axis=1), 1)


class PooledHead(nn.Module):
    """Norm and linear map, as in BEiT and BEiT-3's image classification.

    Attributes:
      classes: number of logits.
      dtype: of the product's operands.
      eps: of the norm.
    """

    classes: int
    dtype: jnp.dtype
    eps: float = LAYER_NORM_EPS

    @nn.compact
    def __call__(self, state: Float[Array, "B D"]) -> Float[Array, "B C"]:
        """Returns logits, float32."""
        normed = LayerNorm(self.dtype, self.eps, name="norm")(state)
        linear = Linear(
            self.classes, ("embed", None), self.dtype, _small_init, exact=True, name="out"
        )
        return linear(normed)


def _small_init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
    return FIRST_SCALE * beit_init()(key, shape, dtype)
