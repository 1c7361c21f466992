"""UPerNet: its size is BEiT's, and what its norms see."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.tiny_models import model_config, randomise
from vlbeit_jax.config.networks import SIZES, ModelConfig
from vlbeit_jax.models.backbone import Inputs
from vlbeit_jax.models.convolutions import Norm
from vlbeit_jax.models.heads.upernet import UPerConfig, default_taps, kept_channels
from vlbeit_jax.models.segmenter import Segmenter
from vlbeit_jax.types import Positions


def size(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_at_base_size_it_has_as_many_parameters_as_beits(norm):
    """163,080,812 in mmsegmentation's UPerNet on BEiT-base, for 150 classes of ADE20K."""
    model = ModelConfig(
        **SIZES["base"], image_size=512, positions=Positions.RELATIVE, text_positions=1
    )
    network = Segmenter(model, UPerConfig(150, 768, norm=norm), default_taps(12))
    shapes = jax.eval_shape(lambda key: network.init(key, method="init_all"), jax.random.key(0))
    params = nn.unbox(shapes["params"])
    # Deconvolutions, UPerHead, auxiliary head.
    assert size(params["head"]["upernet"]["pyramid"]) == 7_081_728
    assert size(params["head"]["upernet"]) == 7_081_728 + 67_963_542
    assert size(params["head"]["fcn"]) == 1_808_534
    # BEiT has no mask token here, no embedding of the modality, and no positions of texts.
    texts = 4 * 12 * 12
    assert size(params) - 2 * 768 - texts == 163_080_812
    assert ("moments" in shapes) is (norm == "batch")


def test_taps_are_beits_and_scale_with_the_depth():
    assert default_taps(12) == (3, 5, 7, 11) and default_taps(24) == (7, 11, 15, 23)
    assert default_taps(4) == (0, 1, 2, 3) and default_taps(1) == (0, 0, 0, 0)


@pytest.mark.parametrize("kind", ["group", "batch"])
def test_norms_equal_a_statement_in_float64(kind):
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(3, 4, 5, 64)) * 3 + 7).astype(np.float32)
    scale, bias = rng.normal(size=(2, 64))
    params = {"scale": jnp.asarray(scale, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}
    found, changed = Norm(kind).apply({"params": params}, jnp.asarray(x), (), mutable=["moments"])
    wide = x.astype(np.float64)
    if kind == "group":
        # 64 channels make 16 groups, because a group has at least four.
        parts = wide.reshape(3, 20, 16, 4).transpose(0, 2, 1, 3).reshape(3, 16, 80)
        mean = parts.mean(-1).repeat(4, axis=1)[:, None, None]
        variance = parts.var(-1).repeat(4, axis=1)[:, None, None]
    else:
        mean, variance = wide.mean((0, 1, 2)), wide.var((0, 1, 2))
        moments = changed["moments"]
        np.testing.assert_allclose(moments["mean"], mean, rtol=1e-5)
        np.testing.assert_allclose(moments["variance"], variance, rtol=1e-5)
        given = params | {name: jnp.asarray(value) for name, value in moments.items()}
        np.testing.assert_allclose(
            Norm(kind).apply({"params": given}, jnp.asarray(x)), found, atol=1e-5
        )
    expected = (wide - mean) / np.sqrt(variance + 1e-5) * scale + bias
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_rows_do_not_see_each_other_with_groupnorm_and_logits_have_a_quarter_of_the_side():
    config = model_config(depth=1, image_size=32, patch_size=16)
    network = Segmenter(config, UPerConfig(5, 8, pools=(1, 2)), default_taps(1))
    shapes = jax.eval_shape(lambda key: network.init(key, method="init_all"), jax.random.key(0))
    params = jax.tree.map(jnp.asarray, randomise(nn.unbox(shapes["params"]), 0, 1.0))
    image = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    logits = jax.jit(lambda rows: network.apply({"params": params}, Inputs(image=rows)))
    found = logits(image)
    assert np.std(found) > 0.1
    assert found.shape == (3, 8, 8, 5) and found.dtype == jnp.float32
    changed = np.concatenate([image[:1], image[:1], image[2:]])
    np.testing.assert_allclose(logits(changed)[2], found[2], rtol=1e-4, atol=1e-4)


def test_dropout_drops_whole_channels_and_keeps_their_mean():
    factors = kept_channels(jnp.asarray([[0.05, 0.1, 0.9]]), 0.1)
    np.testing.assert_allclose(factors, [[0, 1 / 0.9, 1 / 0.9]])
    assert kept_channels(None, 0.1) is None
