"""Everything a step changes, and how it comes into being already sharded."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from vlbeit_jax.shapes import Array, Int
from vlbeit_jax.training.sharding import shardings

Tree = Any


@struct.dataclass
class TrainState:
    """What is saved and restored; there is no random key in it, because keys follow from seed and step.

    Attributes:
      step: steps taken.
      params: what gradients move.
      opt_state: moments.
      extra: what the objectives move by rules of their own (codebook, counts of targets).
    """

    step: Int[Array, ""]
    params: Tree
    opt_state: Tree
    extra: Tree

    def saved(self) -> dict[str, Tree]:
        """The trees of a checkpoint: parameters lie apart, so that they can be had without the moments."""
        return {
            "params": self.params,
            "extra": self.extra,
            "optimizer": {"step": self.step, "moments": self.opt_state},
        }

    @classmethod
    def restored(cls, trees: dict[str, Tree]) -> "TrainState":
        """From the trees of a checkpoint."""
        return cls(
            trees["optimizer"]["step"],
            trees["params"],
            trees["optimizer"]["moments"],
            trees["extra"],
        )


def state_maker(
    init_params: Callable[[Array], Tree],
    init_extra: Callable[[], Tree],
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
) -> tuple[Callable[[int], TrainState], TrainState]:
    """How to make a state on the mesh, and its abstract form (shapes, types and shardings) to restore into.

    Args:
      init_params: parameters from a key, boxed with their logical axes.
      init_extra: the objectives' part.
      optimizer: whose moments follow the parameters' sharding.
      mesh: where everything lies.
    """

    def make(seed: Array) -> TrainState:
        params = init_params(jax.random.key(seed))
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), init_extra())

    boxed = jax.eval_shape(make, 0)
    places = shardings(boxed, mesh)
    compiled = jax.jit(lambda seed: nn.unbox(make(seed)), out_shardings=places)
    abstract = jax.tree.map(
        lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        nn.unbox(boxed),
        places,
    )
    return compiled, abstract
