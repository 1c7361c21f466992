"""Everything that a step changes, and how it is created already sharded."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from vlbeit_jax.models.params import read_info
from vlbeit_jax.shapes import Array, Int, Tree
from vlbeit_jax.training.mesh import param_shardings, replicated
from vlbeit_jax.training.trainable import EVERYTHING, Trained, part_like, replaced

# What checkpoints call the number of refused updates, as those of version 0.2.0 do.
SAVED_REFUSED = "skipped"


@struct.dataclass
class TrainState:
    """What is saved and restored. It has no random key: keys follow from seed and step.

    Attributes:
      step: batches consumed; it advances even if an update is refused.
      params: of the trained network.
      opt_state: moments of the parameters that gradients move (``training.trainable``).
      model_state: what the objectives move by rules of their own (codebook, counts of targets).
      ema: an exponential moving average of the parameters that gradients move; None if the run
        keeps none.
      refused: updates refused so far, because something in them was not finite.
    """

    step: Int[Array, ""]
    params: Tree
    opt_state: Tree
    model_state: Tree
    ema: Tree | None
    refused: Int[Array, ""]

    @property
    def averaged_params(self) -> Tree:
        """All parameters, with the average of those that move."""
        return replaced(self.params, self.ema)

    def saved(self) -> dict[str, Tree]:
        """Returns the trees of a checkpoint; parameters can be read without the moments.

        Averages are saved with the fixed parameters, so that they are a whole network.
        """
        progress = {"step": self.step, "moments": self.opt_state, SAVED_REFUSED: self.refused}
        trees = {"params": self.params, "model_state": self.model_state, "optimizer": progress}
        return trees if self.ema is None else {**trees, "ema": self.averaged_params}

    @classmethod
    def restored(cls, trees: dict[str, Tree], like: "TrainState") -> "TrainState":
        """Returns the state from the trees of a checkpoint, with as many averages as ``like``."""
        progress = trees["optimizer"]
        return cls(
            step=progress["step"],
            params=trees["params"],
            opt_state=progress["moments"],
            model_state=trees["model_state"],
            ema=None if like.ema is None else part_like(trees["ema"], like.ema),
            refused=progress[SAVED_REFUSED],
        )


class Declarations(NamedTuple):
    """What a network declares of its parameters.

    Attributes:
      shapes: shape and type of each.
      info: a ``ParamInfo`` for each.
    """

    shapes: Tree
    info: Tree


# Tracing takes seconds at base size, and several parts of a start ask.
@functools.lru_cache(maxsize=8)
def declarations(init_params: Callable[[Array], Tree]) -> Declarations:
    """Returns shapes and facts of the parameters that ``init_params(key)`` creates, boxed."""
    boxed = jax.eval_shape(init_params, jax.eval_shape(jax.random.key, 0))
    return Declarations(nn.unbox(boxed), read_info(boxed))


class StateMaker(NamedTuple):
    """How to make a state on a mesh.

    Attributes:
      make: a fresh state from a seed, on the mesh.
      abstract: its shapes, types and shardings, to restore a checkpoint into.
    """

    make: Callable[[int], TrainState]
    abstract: TrainState


def state_maker(
    init_params: Callable[[Array], Tree],
    init_model_state: Callable[[], Tree],
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    ema: bool = False,
    trained: Trained = EVERYTHING,
) -> StateMaker:
    """Returns how to make a state whose parts already lie on their devices.

    Args:
      init_params: from a key to parameters, boxed with their ``ParamInfo``.
      init_model_state: the objectives' part of the state.
      optimizer: of the trained parameters; its moments are sharded as they are.
      mesh: of devices.
      ema: whether the state has averaged parameters, which start at the parameters.
      trained: the parameters that have moments and averages.

    Raises:
      UsageError: the mesh does not divide a parameter.
    """
    params, info = declarations(init_params)

    def state_of(params: Tree) -> TrainState:
        zero = jnp.zeros((), jnp.int32)
        return TrainState(
            step=zero,
            params=params,
            opt_state=optimizer.init(trained.of(params)),
            model_state=init_model_state(),
            ema=trained.of(params) if ema else None,
            refused=zero,
        )

    def make(seed: Array) -> TrainState:
        return state_of(nn.unbox(init_params(jax.random.key(seed))))

    # The parameters' shapes are known, so their initializers are not traced again.
    shapes, everywhere = jax.eval_shape(state_of, params), replicated(mesh)
    of_params = param_shardings(params, info, mesh)
    shardings = dataclasses.replace(
        shapes,
        step=everywhere,
        params=of_params,
        opt_state=optax.tree.map_params(
            optimizer,
            lambda _, sharding: sharding,
            shapes.opt_state,
            trained.of(of_params),
            transform_non_params=lambda _: everywhere,
        ),
        model_state=jax.tree.map(lambda _: everywhere, shapes.model_state),
        ema=trained.of(of_params) if ema else None,
        refused=everywhere,
    )

    def abstract(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    compiled = jax.jit(make, out_shardings=shardings)
    return StateMaker(compiled, jax.tree.map(abstract, shapes, shardings))
