"""Losses as (total, weight) pairs: summed over batch, microbatches and devices, divided once."""

import jax
import jax.numpy as jnp

from vlbeit_jax.shapes import Array, Float, Int


def cross_entropy(logits: Float[Array, "B M V"], targets: Int[Array, "B M"]) -> Float[Array, "B M"]:
    """Negative log-likelihood of each target, in nats and float32."""
    logits = logits.astype(jnp.float32)
    picked = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - picked


def mean(total: Float[Array, ""], weight: Float[Array, ""]) -> Float[Array, ""]:
    """``total / weight``, and 0 with finite gradients where nothing was weighed."""
    return jnp.where(weight > 0, total / jnp.maximum(weight, 1e-9), 0.0)
