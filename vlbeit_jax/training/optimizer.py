"""AdamW with linear warm-up, cosine decay and clipping, on BEiT's schedule."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vlbeit_jax.config.common import OptimizerConfig
from vlbeit_jax.shapes import Array, Float

Tree = Any


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Returns the schedule: linear from 0 to ``peak_lr``, then half a cosine to ``end_lr``.

    The peak is reached at step ``warmup_steps - 1``.
    """
    warmup = config.warmup_steps

    def rate(step: Any) -> Float[Array, ""]:
        rising = config.peak_lr * step / max(warmup - 1, 1)
        progress = jnp.clip((step - warmup) / max(steps - warmup, 1), 0, 1)
        height = 0.5 * (config.peak_lr - config.end_lr)
        falling = config.end_lr + height * (1 + jnp.cos(math.pi * progress))
        return jnp.where(step < warmup, rising, falling)

    return rate


def make_optimizer(config: OptimizerConfig, steps: int, info: Tree) -> optax.GradientTransformation:
    """Returns clipping by the global norm, then AdamW with float32 moments.

    Args:
      config: rates and decays.
      steps: of the run.
      info: a ``ParamInfo`` per parameter, which says whether weight decay applies.
    """
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    adamw = optax.adamw(
        learning_rate(config, steps),
        b1=config.beta1,
        b2=config.beta2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=jax.tree.map(lambda declared: declared.decay, info),
    )
    return optax.chain(clip, adamw)
