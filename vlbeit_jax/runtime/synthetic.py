"""Inputs and weights made up for a measurement: shaped like those of training, so that a step does the same work."""

import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from vlbeit_jax.config import Config
from vlbeit_jax.data.masking import mask_text
from vlbeit_jax.training.optimizer import DECAYED
from vlbeit_jax.types import Special, Stream

Tree = Any
NOISE = 0.1  # Deviation of what random_weights adds to biases, norms, embeddings and LayerScale.


def random_batches(config: Config, shapes: Mapping[Any, Mapping[str, jax.ShapeDtypeStruct]], seed: int) -> dict[Any, Any]:
    """One batch of every stream, on the devices.

    Pixels are noise. Texts begin with CLS, end with SEP and are padded at the end, to lengths
    between half and all of the word pieces; masked positions are distinct and lie within them.

    Args:
      config: of the run.
      shapes: by stream, arrays with their shardings.
      seed: of the values; another seed gives another batch.
    """
    found = {}
    for number, (stream, leaves) in enumerate(shapes.items()):
        rows = _rows(config, Stream(stream), leaves, np.random.default_rng([seed, number]))
        found[stream] = {name: _placed(rows[name], leaf) for name, leaf in leaves.items()}
    return found


def _placed(value: np.ndarray, leaf: jax.ShapeDtypeStruct) -> jax.Array:
    assert value.shape == leaf.shape, (value.shape, leaf.shape)
    return jax.make_array_from_callback(leaf.shape, leaf.sharding, value.astype(leaf.dtype).__getitem__)


def _rows(config: Config, stream: Stream, leaves: Mapping[str, jax.ShapeDtypeStruct], rng: np.random.Generator) -> dict[str, np.ndarray]:
    count = leaves["weight"].shape[0]
    rows = {"weight": np.ones(count, np.float32), "uid": rng.integers(0, 2**32, count, np.uint32)}
    if "image" in leaves:
        rows["image"] = rng.integers(0, 256, leaves["image"].shape, np.uint8)
    if "image_masked" in leaves:
        patches = rng.random((count, config.model.patches)).argsort(axis=1)
        rows["image_masked"] = np.sort(patches[:, : leaves["image_masked"].shape[1]])
    if "image_targets" in leaves:
        rows["image_targets"] = rng.integers(0, config.model.codes, leaves["image_targets"].shape)
    if "text" in leaves:
        length = leaves["text"].shape[1]
        share = getattr(config.data, stream).masked_text
        masked = [mask_text(rng, _text(rng, length, config), share, config.model.vocabulary) for _ in range(count)]
        for name, parts in zip(("text", "text_masked", "text_targets", "text_weights"), zip(*masked, strict=True), strict=True):
            rows[name] = np.stack(parts)
    return rows


def _text(rng: np.random.Generator, length: int, config: Config) -> np.ndarray:
    end = rng.integers(max(length // 2, 3), length + 1)
    text = np.full(length, config.model.pad, np.int32)
    text[: end - 1] = rng.integers(Special.MASK + 1, config.model.vocabulary, end - 1)
    text[0], text[end - 1] = Special.CLS, Special.SEP
    return text


def random_frozen(shapes: Tree) -> Tree:
    """Parameters of a frozen network. Kernels keep activations in range, so that visual tokens differ."""

    def make(path: Any, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        key = _key(0, path)
        if path[-1].key == "scale":
            return jax.device_put(np.ones(leaf.shape, leaf.dtype), leaf.sharding)
        spread = leaf.shape[0] ** -0.5 if leaf.ndim > 1 else 0.02
        return jax.device_put(spread * jax.random.normal(key, leaf.shape, leaf.dtype), leaf.sharding)

    return jax.tree_util.tree_map_with_path(make, shapes)


def random_weights(params: Tree, seed: int) -> Tree:
    """Fresh parameters plus noise: the start of a comparison.

    At a fresh start residuals are so small, and logits so even, that another network would have
    nearly the same loss. With this noise every part of the network moves it.
    """

    def noisy(path: Any, leaf: jax.Array) -> jax.Array:
        name = [entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey)][-1]
        key = _key(seed, path)
        spread = leaf.shape[0] ** -0.5 if name in DECAYED - {"words"} and leaf.ndim > 1 else NOISE
        noise = spread * jax.random.normal(key, leaf.shape, leaf.dtype)
        return jax.device_put(leaf + noise, leaf.sharding)

    return jax.tree_util.tree_map_with_path(noisy, params)


def _key(seed: int, path: Any) -> jax.Array:
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(jax.tree_util.keystr(path).encode()))
