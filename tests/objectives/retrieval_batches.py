"""A dual encoder that compiles in no time, and batches for it, for tests of its losses."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from vlbeit_jax.models.params import declare
from vlbeit_jax.objectives.base import ROW, Context, Variables
from vlbeit_jax.ops.quantize import l2_normalise
from vlbeit_jax.training.step import stream_key

ROWS, FEATURES, LENGTH, SIDE, WORDS = 16, 10, 8, 2, 50


class Sizes(NamedTuple):
    """What the losses ask of a network's configuration."""

    depth: int = 2
    drop_path: float = 0.3


class Towers(nn.Module):
    """Pixels and words to unit vectors and matching logits, by one linear map each."""

    config: Sizes = Sizes()

    def setup(self):
        init = declare(nn.initializers.normal(0.5), "embed", None)
        pixels, both = 3 * SIDE**2, 3 * SIDE**2 + LENGTH
        self.image = self.param("image", init, (pixels, FEATURES))
        self.text = self.param("text", init, (LENGTH, FEATURES))
        self.pair = self.param("pair", init, (both, 2))
        self.head = Scale()

    def embed_image(self, inputs, draws):
        return l2_normalise(dropped(pixels_of(inputs), draws) @ self.image)

    def embed_text(self, inputs, draws):
        return l2_normalise(dropped(words_of(inputs), draws) @ self.text)

    def match(self, inputs, draws):
        x = jnp.concatenate([pixels_of(inputs), words_of(inputs)], axis=1)
        return dropped(x, draws) @ self.pair

    def init_all(self):
        self.head()


class Scale(nn.Module):
    @nn.compact
    def __call__(self):
        return self.param("logit_scale", declare(nn.initializers.constant(2.0)), ())


def pixels_of(inputs):
    return inputs.image.reshape(len(inputs.image), -1) / 127.5 - 1


def words_of(inputs):
    return inputs.text / WORDS - 0.5


def dropped(x, draws):
    """Drops whole values of a row by its draws, so that another draw is another vector."""
    if draws is None:
        return x
    flat = draws.reshape(len(draws), -1)
    kept = jnp.tile(flat, -(-x.shape[1] // flat.shape[1]))[:, : x.shape[1]] > 0.3
    return jnp.where(kept, x, 0)


NETWORK = Towers()


def init(key):
    return NETWORK.init(key, method="init_all")["params"]


@functools.cache
def random_params():
    rng = np.random.default_rng(0)
    shapes = {"image": (3 * SIDE**2, FEATURES), "text": (LENGTH, FEATURES)}
    shapes["pair"] = (3 * SIDE**2 + LENGTH, 2)
    params = {name: np.float32(rng.normal(size=shape) / 2) for name, shape in shapes.items()}
    return params | {"head": {"logit_scale": np.float32(2)}}


def retrieval_batch(rows=ROWS, pictures=None, seed=0):
    """Random images and texts; rows 3 and 9 are of one picture."""
    rng = np.random.default_rng(seed)
    if pictures is None:
        pictures = [3 if row == 9 else row for row in range(rows)]
    return {
        "image": rng.integers(0, 256, (rows, SIDE, SIDE, 3), np.uint8),
        "text": rng.integers(0, WORDS, (rows, LENGTH)).astype(np.int32),
        "picture": np.asarray(pictures, np.uint32),
        "weight": np.ones(rows, np.float32),
    }


def variables(params):
    return Variables(params, {}, {})


def numbered(batch):
    rows = {name: jnp.asarray(value) for name, value in batch.items()}
    return rows | {ROW: jnp.arange(len(batch["weight"]))}


def context(parts=1):
    return Context(stream_key(0, "toy", jnp.int32(0)), microbatches=parts)


def slices(batch, parts):
    """Cuts a batch into microbatches."""
    rows = len(batch["weight"]) // parts
    starts = [index * rows for index in range(parts)]
    return [{name: value[i : i + rows] for name, value in batch.items()} for i in starts]


@functools.partial(jax.jit, static_argnames=("objective", "parts"))
def in_parts(objective, params, batch, parts):
    """Means of the terms and gradients of their sum, as the step computes them in microbatches."""
    rows, ctx = numbered(batch), context(parts)

    def per_row(fn, batch):
        found = [fn(variables(params), part, ctx) for part in slices(batch, parts)]
        return jax.tree.map(lambda *parts: jnp.concatenate(parts), *found)

    weights = objective.weights(rows)
    prepared = objective.prepare(variables(params), rows, ctx, per_row)

    def loss(params, part):
        terms, _ = objective(variables(params), part, ctx)
        return sum(term.loss / weights[name] for name, term in terms.items()), terms

    found = [jax.grad(loss, has_aux=True)(params, part) for part in slices(prepared, parts)]
    gradients, terms = jax.tree.map(lambda *leaves: sum(leaves), *found)
    return {name: term.means() for name, term in terms.items()}, gradients


def assert_same_gradients(found, expected, tolerance=2e-6):
    """Every gradient within a share of the largest of all."""
    largest = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))

    def compare(path, one, other):
        error = float(jnp.abs(one - other).max()) / largest
        assert error < tolerance, (jax.tree_util.keystr(path), error)

    jax.tree_util.tree_map_with_path(compare, found, expected)
