"""AdamW with linear warm-up, cosine decay, clipping, and weight decay by the role of a parameter (spec section 4)."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vlbeit_jax.config import OptimizerConfig
from vlbeit_jax.shapes import Array, Float

# Matrices that multiply activations, and word embeddings. Everything else escapes decay: biases, normalisation, LayerScale,
# CLS, mask token, positions of both kinds and modality types.
DECAYED = {"kernel", "qkv", "out", "words"}


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Linear from 0 to the peak at step ``warmup_steps - 1``, then half a cosine that ends at ``end_lr`` (BEiT)."""
    warmup = config.warmup_steps

    def rate(step: Any) -> Float[Array, ""]:
        rising = config.peak_lr * step / max(warmup - 1, 1)
        progress = (step - warmup) / max(steps - warmup, 1)
        falling = config.end_lr + 0.5 * (config.peak_lr - config.end_lr) * (
            1 + jnp.cos(math.pi * jnp.clip(progress, 0, 1))
        )
        return jnp.where(step < warmup, rising, falling)

    return rate


def decay_mask(params: Any) -> Any:
    """True for parameters that are decayed, by the last part of their name."""
    return jax.tree_util.tree_map_with_path(lambda path, _: _name(path) in DECAYED, params)


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Clipping by the global norm, then AdamW; moments are float32 like the parameters."""
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    adamw = optax.adamw(
        learning_rate(config, steps),
        b1=config.beta1,
        b2=config.beta2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=decay_mask,
    )
    return optax.chain(clip, adamw)


def _name(path: Any) -> str:
    """The last name on a path; boxes of sharding metadata add an attribute of their own behind it."""
    return [entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey)][-1]
