"""Which implementation computes attention in a step, and why it is not a kernel."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from vlbeit_jax.objectives.base import Objective
from vlbeit_jax.ops.attention import choose_implementation, why_not_fused
from vlbeit_jax.ops.device import chips_sharing_heads
from vlbeit_jax.plan.networks import Stack, networks_of
from vlbeit_jax.shapes import Tree


class AttentionUse(NamedTuple):
    """Attention of one or more Transformers of a step.

    Attributes:
      tokens: of a row.
      implementation: "einsum" or "fused" (``ops.attention``).
      reason: why our TPU kernels do not compute it; empty if they do or if "einsum" was asked for.
    """

    tokens: int
    implementation: str
    reason: str


def attention_uses(
    objectives: Mapping[str, Objective],
    params: Tree,
    frozen: Tree,
    batches: Mapping[str, Mapping[str, Any]],
    mesh: Any,
) -> list[AttentionUse]:
    """Returns what the Transformers of a step use on a mesh of TPU chips, each kind once.

    Args:
      objectives: losses by stream.
      params: shapes, as the next two.
      frozen: parameters of frozen networks.
      batches: by stream.
      mesh: of TPU chips.
    """
    stacks = [
        stack
        for name, batch in batches.items()
        for stack in networks_of(objectives[name], params, frozen, batch).stacks
    ]
    with jax.set_mesh(mesh):
        return sorted({_use(stack) for stack in stacks})


def _use(stack: Stack) -> AttentionUse:
    c = stack.config
    sizes = (stack.length, c.width, c.heads)
    options = {"biased": bool(c.relative_grid), "masked": stack.masked}
    name = choose_implementation(c.attention, *sizes, c.dtype, **options)
    reason = ""
    if name == "einsum" and c.attention == "auto":
        reason = why_not_fused(*sizes, chips_sharing_heads(), c.dtype, **options)
    return AttentionUse(stack.length, name, reason)
