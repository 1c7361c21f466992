"""A linear classifier as an objective: the smallest thing that the train step can train."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from tests import tiny
from vlbeit_jax.models.params import declare
from vlbeit_jax.objectives.base import Objective, Term
from vlbeit_jax.training.mesh import put_batch, shardings
from vlbeit_jax.training.state import declarations, state_maker
from vlbeit_jax.training.step import make_train_step

ROWS, WIDTH = 16, 8
# What a refused update leaves alone.
GUARDED = ("params", "opt_state", "model_state", "ema")


class Regression(nn.Module):
    """A kernel that is split along fsdp, and a bias that is not."""

    @nn.compact
    def __call__(self, x):
        kernel = self.param("kernel", declare(nn.initializers.normal(), "embed"), (WIDTH,))
        return x @ kernel + self.param("bias", declare(nn.initializers.zeros), ())


@dataclasses.dataclass(frozen=True)
class SquaredError(Objective):
    """Squared errors; the model state is the running mean of the inputs."""

    def init_model_state(self):
        return {"mean": jnp.zeros(WIDTH)}

    def weights(self, batch):
        return {"fit": batch["weight"].sum()}

    def __call__(self, variables, batch, ctx):
        error = jnp.square(
            Regression().apply({"params": variables.params}, batch["x"]) - batch["y"]
        )
        term = Term((error * batch["weight"]).sum(), batch["weight"].sum())
        return {"fit": term}, {"sum": batch["x"].sum(axis=0) * batch["statistic"].sum()}

    def update(self, model_state, statistics):
        return {"mean": 0.9 * model_state["mean"] + 0.1 * statistics["sum"] / ROWS}, {}


def init_params(key):
    return Regression().init(key, jnp.zeros((1, WIDTH)))["params"]


def rows(seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
    ones = np.ones(ROWS, np.float32)
    return {"x": x, "y": x.sum(axis=1), "weight": ones, "statistic": ones}


class Training:
    """A state on a mesh, and the step that moves it."""

    def __init__(
        self, shape, ema_decay=0.0, accumulate=1, optimizer=None, objective=None, init=init_params
    ):
        objective = objective or SquaredError()
        optimizer = optimizer or optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1))
        self.mesh = tiny.mesh_of(*shape)
        self.info = declarations(init).info
        self.make, self.abstract = state_maker(
            init,
            lambda: {"toy": objective.init_model_state()},
            optimizer,
            self.mesh,
            ema=bool(ema_decay),
        )
        self.step = make_train_step(
            {"toy": objective},
            optimizer,
            self.info,
            shardings(self.abstract.params),
            self.mesh,
            seed=0,
            accumulate=accumulate,
            ema_decay=ema_decay,
        )

    def put(self, rows):
        return {"toy": put_batch(rows, self.mesh)}

    def __call__(self, state, rows):
        return self.step(state, {}, self.put(rows))


def bits(state, names=GUARDED):
    """The bytes of every device's part."""
    trees = [getattr(state, name) for name in names]
    return [
        np.asarray(shard.data).tobytes()
        for leaf in jax.tree.leaves(trees)
        for shard in leaf.addressable_shards
    ]
