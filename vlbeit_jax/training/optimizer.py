"""AdamW with warm-up, decay of the learning rate, clipping, and a rate per layer."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vlbeit_jax.config.common import OptimizerConfig
from vlbeit_jax.models.backbone import layer_of
from vlbeit_jax.shapes import Array, Int, Tree
from vlbeit_jax.training.param_names import leaf_name, parameter_names
from vlbeit_jax.training.trainable import trained_parameters

HEAD = "head"  # Where new heads are in the tree of parameters.
_BLOCK = "encoder/block_"


def learning_rate(config: OptimizerConfig, steps: int) -> Callable[[Any], Any]:
    """Returns the schedule: linear from 0 to ``peak_lr``, then down to ``end_lr``.

    The peak is reached at step ``warmup_steps - 1``. The rate of a Python number comes from NumPy:
    on a device it would wait behind the step that is running.
    """
    warmup = config.warmup_steps
    power = 1.0 if config.lr_decay == "linear" else config.lr_power

    def rate(step: Any) -> Any:
        xp = jnp if isinstance(step, jax.Array) else np
        rising = config.peak_lr * step / max(warmup - 1, 1)
        progress = xp.clip((step - warmup) / max(steps - warmup, 1), 0, 1)
        if config.lr_decay == "cosine":
            height = 0.5 * (config.peak_lr - config.end_lr)
            falling = config.end_lr + height * (1 + xp.cos(math.pi * progress))
        else:
            falling = config.end_lr + (config.peak_lr - config.end_lr) * (1 - progress) ** power
        return xp.where(step < warmup, rising, falling)

    return rate


def make_optimizer(config: OptimizerConfig, steps: int, info: Tree) -> optax.GradientTransformation:
    """Returns clipping by the global norm, then AdamW with float32 moments.

    The factors of ``rate_factors`` multiply AdamW's update, weight decay included, as the learning
    rates of PyTorch's parameter groups do. Multiplying gradients instead would change nothing,
    because AdamW divides by their scale.

    Args:
      config: rates and decays.
      steps: of the run.
      info: a ``ParamInfo`` per parameter, which says whether weight decay applies.

    Returns:
      An optimizer of the trained parameters: gradients, parameters and moments are trees without
      those that ``config.trainable`` leaves out.

    Raises:
      UsageError: ``config.trainable`` names parameters that do not exist.
    """
    trained = trained_parameters(config.trainable, info)
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    adamw = optax.adamw(
        learning_rate(config, steps),
        b1=config.beta1,
        b2=config.beta2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=jax.tree.map(lambda declared: declared.decay, trained.of(info)),
    )
    if config.layer_decay == 1.0 and config.head_factor == 1.0:
        return optax.chain(clip, adamw)
    factors = rate_factors(config, info)

    def scaled(updates: Tree, params: Tree) -> Tree:
        return jax.tree_util.tree_map_with_path(
            lambda path, update: factors[leaf_name(path)] * update, updates
        )

    return optax.chain(clip, adamw, optax.stateless(scaled))


def at_step(opt_state: Tree, step: Int[Array, ""]) -> Tree:
    """Returns an optimizer's state whose next learning rate is that of a step.

    optax counts the updates that were applied. Refused updates, and steps that a rollback has taken
    back, would be missing: the schedule would not reach its end, and the log would name other rates
    than those that were used.
    """

    def moved(part: Any) -> Any:
        return part._replace(count=step) if _is_schedule(part) else part

    return jax.tree.map(moved, opt_state, is_leaf=_is_schedule)


def _is_schedule(part: Any) -> bool:
    return isinstance(part, optax.ScaleByScheduleState)


def rate_factors(config: OptimizerConfig, info: Tree) -> dict[str, float]:
    """Returns the learning rate of each parameter over that of the run, by name.

    It is ``layer_decay`` to the power of the number of layers above the parameter's: embeddings
    are layer 0, block i is layer i + 1, and everything else is the top layer (BEiT). Heads get
    ``head_factor`` besides.

    Args:
      config: of the optimizer.
      info: a leaf per parameter.
    """
    names = parameter_names(info)
    blocks = {name.split("/")[1] for name in names if name.startswith(_BLOCK)}
    top = len(blocks) + 1

    def factor(path: list[str]) -> float:
        decay = config.layer_decay ** (top - layer_of(path, len(blocks)))
        return decay * (config.head_factor if path[0] == HEAD else 1.0)

    return {name: factor(name.split("/")) for name in names}


def describe_factors(config: OptimizerConfig, info: Tree) -> str:
    """Returns the factors of what is trained on one line, each with a parameter; empty if 1."""
    trained = trained_parameters(config.trainable, info)
    factors = {
        name: factor for name, factor in rate_factors(config, info).items() if name in trained
    }
    if set(factors.values()) == {1.0}:
        return ""
    first = {factor: name for name, factor in reversed(factors.items())}
    parts = [f"{factor:.4g} from {name}" for factor, name in sorted(first.items())]
    return f"learning rates are multiplied by {', '.join(parts)}"
