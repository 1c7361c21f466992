"""The classifier has what it needs, starts at equal chances and ignores padding."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import tiny
from vlbeit_jax.models.backbone import Backbone, Inputs
from vlbeit_jax.models.classifier import Classifier
from vlbeit_jax.models.vlbeit import VLBEiT
from vlbeit_jax.training.param_names import leaf_name
from vlbeit_jax.training.state import declarations
from vlbeit_jax.types import Modality

MODEL = dataclasses.replace(tiny.SMALL, matmul="float32")
IMAGE = jnp.asarray(np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8))
TEXT = jnp.array([[2, 7, 9, 3, 0, 0], [2, 8, 3, 0, 0, 0], [2, 5, 6, 7, 8, 3]])


def network(modality, pool="mean"):
    return Classifier(MODEL, 5, modality, pool)


def random(tree, seed=1):
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return structure.unflatten(
        [0.3 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    )


def params_of(module):
    return declarations(lambda key: module.init(key, method="init_all")["params"]).shapes


@functools.partial(jax.jit, static_argnums=0)
def logits_of(module, params, inputs):
    return module.apply({"params": params}, inputs)


def names(module):
    return {leaf_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params_of(module))}


@pytest.mark.parametrize(
    ("modality", "other"), [(Modality.VISION, "text_embed"), (Modality.LANGUAGE, "vision_embed")]
)
def test_it_has_one_modality_and_no_heads_of_pretraining(modality, other):
    head = {"head/norm/scale", "head/norm/bias", "head/out/kernel", "head/out/bias"}
    found = names(network(modality))
    assert found >= head and found - head < names(VLBEiT(MODEL))
    gone = names(VLBEiT(MODEL)) - found
    assert not any(name.startswith(other) for name in found)
    assert {"encoder/norm/scale", "vision_head/kernel", "language_head/kernel"} <= gone
    assert not any("vision_language" in name for name in found)


def test_all_classes_are_almost_equally_likely_at_the_start():
    module = network(Modality.VISION)
    params = jax.jit(lambda key: module.init(key, method="init_all")["params"])(jax.random.key(0))
    logits = logits_of(module, params, Inputs(image=IMAGE))
    assert 0 < np.abs(logits).max() < 1e-3


def test_the_head_is_norm_and_linear_map_of_the_mean_of_patches_before_the_final_norm():
    module = network(Modality.VISION)
    params = random(params_of(module))
    backbone = Backbone(MODEL, final_norm=False)
    states = jax.jit(lambda p: backbone.apply({"params": p}, Inputs(image=IMAGE)).tokens.x)(params)
    states = np.asarray(states, np.float64)
    head = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["head"])

    def logits(pooled):
        norm, out = head["norm"], head["out"]
        centred = pooled - pooled.mean(axis=1, keepdims=True)
        unit = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + MODEL.norm_eps)
        return (unit * norm["scale"] + norm["bias"]) @ out["kernel"] + out["bias"]

    found = logits_of(module, params, Inputs(image=IMAGE))
    np.testing.assert_allclose(found, logits(states[:, 1:].mean(axis=1)), atol=2e-5)
    assert np.abs(found - logits(states.mean(axis=1))).max() > 1e-2  # Control: with CLS.
    cls = logits_of(network(Modality.VISION, "cls"), params, Inputs(image=IMAGE))
    np.testing.assert_allclose(cls, logits(states[:, 0]), atol=2e-5)


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_padding_of_texts_changes_nothing(pool):
    module = network(Modality.LANGUAGE, pool)
    params = random(params_of(module))
    short = logits_of(module, params, Inputs(text=TEXT))
    longer = jnp.pad(TEXT, ((0, 0), (0, 2)))
    padded = logits_of(module, params, Inputs(text=longer))
    np.testing.assert_allclose(short, padded, atol=1e-5)
    other = logits_of(module, params, Inputs(text=longer.at[0, 5].set(4)))
    assert np.abs(other[0] - short[0]).max() > 1e-3  # Control: a word in place of the padding.
