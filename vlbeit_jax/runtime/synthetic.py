"""Random inputs and weights for measurements, with the shapes of training."""

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vlbeit_jax.data.draws import Draws
from vlbeit_jax.data.masking import mask_text
from vlbeit_jax.shapes import Tree
from vlbeit_jax.tasks import Config
from vlbeit_jax.training.state import TrainState
from vlbeit_jax.types import Special

NOISE = 0.1  # Standard deviation of biases, norms, embeddings and LayerScale.
PRODUCTS: tuple[str, ...] = (
    "kernel",
    "qkv",
    "out",
)  # Matrices, whose values keep the size of activations.
# Means of parameters; others have mean 0. With these, every block affects the loss.
STARTS: dict[str, float] = dict.fromkeys(("scale", "attention_scale", "expert_scale"), 1.0)


def random_batches(
    config: Config, shapes: Mapping[Any, Mapping[str, jax.ShapeDtypeStruct]], seed: int
) -> dict[Any, Any]:
    """Returns one batch of every stream, on the devices.

    Pixels are noise. Texts begin with CLS, end with SEP and have padding at the end. Their lengths
    are between half of the word pieces and all of them. Masked positions are distinct and within
    the text.

    Args:
      config: of the run.
      shapes: by stream, shapes of arrays with their shardings.
      seed: another seed gives another batch.
    """
    batches = {}
    for number, (stream, leaves) in enumerate(shapes.items()):
        rows = _rows(config, stream, leaves, np.random.default_rng([seed, number]))
        batches[stream] = {name: _placed(rows[name], leaf) for name, leaf in leaves.items()}
    return batches


def _placed(value: np.ndarray, leaf: jax.ShapeDtypeStruct) -> jax.Array:
    assert value.shape == leaf.shape, (value.shape, leaf.shape)
    return jax.make_array_from_callback(
        leaf.shape, leaf.sharding, value.astype(leaf.dtype).__getitem__
    )


def _rows(
    config: Config,
    stream: str,
    leaves: Mapping[str, jax.ShapeDtypeStruct],
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    count = leaves["weight"].shape[0]
    rows = {"weight": np.ones(count, np.float32), "uid": rng.integers(0, 2**32, count, np.uint32)}
    if "image" in leaves:
        rows["image"] = rng.integers(0, 256, leaves["image"].shape, np.uint8)
    if "masked_patches" in leaves:
        patches = rng.random((count, config.task.model.patches)).argsort(axis=1)
        rows["masked_patches"] = np.sort(patches[:, : leaves["masked_patches"].shape[1]])
    if "image_targets" in leaves:
        rows["image_targets"] = rng.integers(
            0, config.task.model.codes, leaves["image_targets"].shape
        )
    if "label" in leaves:
        rows["label"] = rng.integers(0, 2, count)  # Every classifier has two classes.
    if "erase" in leaves:
        rows["erase"] = rng.integers(1, 9, leaves["erase"].shape)
    if "text" in leaves and "text_masked" not in leaves:
        length = leaves["text"].shape[1]
        rows["text"] = np.stack([_text(rng, length, config) for _ in range(count)])
    elif "text" in leaves:
        length = leaves["text"].shape[1]
        share = getattr(config.task, stream).masked_text
        draws = Draws(rng.bytes(16))
        masked = [
            mask_text(draws, _text(rng, length, config), share, config.task.model.vocabulary)
            for _ in range(count)
        ]
        for name, parts in zip(
            ("text", "text_masked", "text_targets", "text_weights"),
            zip(*masked, strict=True),
            strict=True,
        ):
            rows[name] = _padded(np.stack(parts), leaves[name].shape[1])
    others = {name: leaf for name, leaf in leaves.items() if name not in rows}
    return rows | {name: _any_values(rng, leaf) for name, leaf in others.items()}


def _padded(rows: np.ndarray, length: int) -> np.ndarray:
    """Returns rows of this length. A stream may have slots for more masks; these stay empty."""
    return np.pad(rows, [(0, 0), (0, length - rows.shape[1])])


def _any_values(rng: np.random.Generator, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    """Returns shares, small numbers or identities, by the array's type."""
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        return rng.random(leaf.shape)
    return rng.integers(0, 2**32 if leaf.dtype == np.uint32 else 2, leaf.shape)


def _text(rng: np.random.Generator, length: int, config: Config) -> np.ndarray:
    end = rng.integers(max(length // 2, 3), length + 1)
    text = np.full(length, config.task.model.pad, np.int32)
    text[: end - 1] = rng.integers(Special.MASK + 1, config.task.model.vocabulary, end - 1)
    text[0], text[end - 1] = Special.CLS, Special.SEP
    return text


def random_state(shapes: TrainState, seed: int) -> TrainState:
    """Returns the state in which a measurement starts: random parameters at step 0.

    The host draws all values. To initialise the state as training does, XLA would have to compile a
    program, which takes longer than the measurement. Also, in such a state the residuals are so
    small and the logits so even that another network would have nearly the same loss. With these
    values every part of the network affects the loss.

    Args:
      shapes: of the state, with shardings.
      seed: of the values.
    """
    zeros = jax.tree.map(lambda leaf: _placed(np.zeros(leaf.shape, leaf.dtype), leaf), shapes)
    tables = random_weights(shapes.model_state, seed)
    # Counts start at 0.
    model_state = jax.tree.map(
        lambda zero, table: table if table.ndim > 1 else zero, zeros.model_state, tables
    )
    return dataclasses.replace(
        zeros, params=random_weights(shapes.params, seed), model_state=model_state
    )


def random_weights(shapes: Tree, seed: int) -> Tree:
    """Returns random parameters.

    Kernels keep activations in range, norms and LayerScale are around 1, all others around 0.
    """
    return jax.tree_util.tree_map_with_path(lambda path, leaf: _random(path, leaf, seed), shapes)


def _random(path: Any, leaf: jax.ShapeDtypeStruct, seed: int) -> jax.Array:
    name = [entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey)][-1]
    rng = np.random.default_rng([seed, zlib.crc32(jax.tree_util.keystr(path).encode())])
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return _placed(np.zeros(leaf.shape, leaf.dtype), leaf)
    spread = leaf.shape[0] ** -0.5 if name in PRODUCTS and leaf.ndim > 1 else NOISE
    value = spread * rng.standard_normal(leaf.shape, np.float32)
    return _placed(value + STARTS.get(name, 0), leaf)
