"""Cross-entropy, and the one division of a summed loss by its weight."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vlbeit_jax.shapes import Array, Bool, Float, Int


class Grades(NamedTuple):
    """How well masked tokens were predicted.

    Attributes:
      loss: negative log-likelihood, in nats and float32.
      right: whether the likeliest answer, of equal ones the first, is the target.
    """

    loss: Float[Array, "B M"]
    right: Bool[Array, "B M"]


def grade(logits: Float[Array, "B M V"], targets: Int[Array, "B M"]) -> Grades:
    """Grades of predictions."""
    return Grades(cross_entropy(logits, targets), jnp.argmax(logits, axis=-1) == targets)


def cross_entropy(logits: Float[Array, "B M V"], targets: Int[Array, "B M"]) -> Float[Array, "B M"]:
    """Negative log-likelihood of each target, in nats and float32."""
    logits = logits.astype(jnp.float32)
    picked = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - picked


def mean(total: Float[Array, ""], weight: Float[Array, ""]) -> Float[Array, ""]:
    """``total / weight``, and 0 with a finite gradient if the weight is 0."""
    # The bound keeps the quotient that ``where`` drops finite: its gradient would be NaN times 0.
    return jnp.where(weight > 0, total / jnp.maximum(weight, 1e-9), 0.0)
