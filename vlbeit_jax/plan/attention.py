"""Which implementation computes attention in a step, and why it is not a kernel."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax

from vlbeit_jax.ops.attention import choose_implementation, why_not_fused
from vlbeit_jax.ops.device import chips_sharing_heads
from vlbeit_jax.plan.networks import Stack


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


def attention_uses(stacks: Iterable[Stack], mesh: Any) -> list[AttentionUse]:
    """Returns what the Transformers of a step use on a mesh of TPU chips, each kind once."""
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
