"""Cross-entropy, and the one division of a summed loss by its weight."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vlbeit_jax.shapes import Array, Bool, Float, Int


class Prediction(NamedTuple):
    """How well targets were predicted.

    Attributes:
      loss: negative log-likelihood of the target, in nats, float32.
      correct: whether the most likely class is the target. Of equally likely classes, the first.
    """

    loss: Float[Array, "B M"]
    correct: Bool[Array, "B M"]


def cross_entropy(
    logits: Float[Array, "B M V"], targets: Int[Array, "B M"], smoothing: float = 0.0
) -> Prediction:
    """Returns the loss of each target, and whether it is the most likely class.

    Args:
      logits: of the classes; -inf for those that do not exist.
      targets: right classes.
      smoothing: share of a target that is spread evenly over all other classes.
    """
    correct = jnp.argmax(logits, axis=-1) == targets
    loss = negative_log_likelihood(logits, targets)
    if smoothing:
        total, count = sum_of_logits(logits)
        normaliser = jax.nn.logsumexp(logits.astype(jnp.float32), axis=-1)
        loss = smoothed_loss(loss, count * normaliser - total, count, smoothing)
    return Prediction(loss, correct)


def sum_of_logits(
    logits: Float[Array, "B M V"],
) -> tuple[Float[Array, "B M"], Float[Array, "B M"]]:
    """Returns the sum of the logits that are not -inf, and their number."""
    exists = logits > -jnp.inf
    return jnp.where(exists, logits, 0).astype(jnp.float32).sum(-1), exists.sum(-1, jnp.float32)


def smoothed_loss(
    of_target: Float[Array, "B M"],
    of_all: Float[Array, "B M"],
    count: Float[Array, "B M"],
    smoothing: float,
) -> Float[Array, "B M"]:
    """Returns the cross-entropy with a target that is spread over the other classes.

    Args:
      of_target: negative log-likelihood of the target.
      of_all: sum of the negative log-likelihoods of all classes.
      count: number of classes.
      smoothing: share that the other classes have together.
    """
    return (1 - smoothing) * of_target + smoothing * (of_all - of_target) / (count - 1)


def negative_log_likelihood(
    logits: Float[Array, "B M V"], targets: Int[Array, "B M"]
) -> Float[Array, "B M"]:
    """Returns the negative log-likelihood of each target, in nats and float32."""
    logits = logits.astype(jnp.float32)
    # A comparison and not an index, whose gradient would be a scatter into as many zeros as there
    # are logits.
    is_target = targets[..., None] == jnp.arange(logits.shape[-1])
    picked = jnp.where(is_target, logits, 0).sum(axis=-1)
    return jax.nn.logsumexp(logits, axis=-1) - picked


def mean(total: Float[Array, ""], weight: Float[Array, ""]) -> Float[Array, ""]:
    """Returns ``total / weight``; 0, with finite gradients, if the weight is 0.

    A weight that is NaN gives NaN, so that a fault in the data shows in the loss.
    """
    return jnp.where(weight == 0, 0.0, total / jnp.where(weight == 0, 1.0, weight))
